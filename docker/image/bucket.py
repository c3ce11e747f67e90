"""Makes the bucket of MLflow's artifacts, if it is not there yet."""

import os
import sys
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

PATIENCE_S = 60

store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
end = time.monotonic() + PATIENCE_S
while True:
    try:
        store.create_bucket(Bucket=sys.argv[1])
        break
    except (store.exceptions.BucketAlreadyOwnedByYou, store.exceptions.BucketAlreadyExists):
        break
    except (BotoCoreError, ClientError) as error:
        if time.monotonic() > end:
            sys.exit(f"bucket: {error}")
        time.sleep(1)
