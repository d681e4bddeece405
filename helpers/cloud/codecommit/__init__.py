"""CodeCommit: what its repositories consist of, and how git reaches them."""
