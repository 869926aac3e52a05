"""Files and pipes as source and sink: CSV, JSON Lines, Parquet.

Rule: a file is one partition, and the position in it is the number of records read.
Does not know: what a record means.
"""
