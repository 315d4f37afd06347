"""Jobs in a folder: submitted once, claimed by one worker at a time, published by the present claim alone.

The door is `folder.JobFolder`; `worker` is the one process that runs jobs, `keeper` starts and replaces it. docs/batch.md
says how the folder is laid out and why a crash at any moment leaves it readable.
"""
