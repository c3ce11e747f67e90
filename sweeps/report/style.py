"""How a report looks, on a screen and on paper."""

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #111; background: #fff;
  margin: 1.5em auto; max-width: 68em; padding: 0 1em; }
h1 { font-size: 1.5em; margin: 0 0 .2em; overflow-wrap: anywhere; }
h2 { font-size: 1.15em; margin: 2em 0 .5em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35em 1em; margin: 1em 0; }
dt { font-weight: 700; } dd { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ccc; padding: .3em .7em; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #666; }
td.good { background: #d6ecfa; } td.bad { background: #ffd9a8; font-weight: 700; }
.figures { display: flex; flex-wrap: wrap; gap: 1em; }
figure { margin: 0; flex: 0 1 32em; min-width: 0; } figure svg { width: 100%; height: auto; }
figcaption { font-size: .9em; color: #444; }
pre { background: #f3f3f3; padding: .7em; white-space: pre-wrap; overflow-wrap: anywhere; }
small, .quiet { color: #555; }
@media (max-width: 40em) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin: 0 0 .8em; } }
@page { size: A4; margin: 14mm; }
@media print {
  body { margin: 0; max-width: none; padding: 0; font-size: 10pt; }
  dl { grid-template-columns: minmax(0, 30%) 1fr; }
  h2, p:has(+ pre) { break-after: avoid; } .wide + p { break-before: avoid; }
  dt, dd, figure, pre, tr { break-inside: avoid; }
  .wide { overflow: visible; } table { font-size: 8.5pt; }
  td:not(:first-child) { overflow-wrap: anywhere; min-width: 4.5em; }
  td, pre { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .figures { display: block; } figure { width: 130mm; margin: 0 0 5mm; }
}
"""
