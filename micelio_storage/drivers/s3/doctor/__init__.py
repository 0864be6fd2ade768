"""What is examined of a bucket, and what to do where it is not well."""
