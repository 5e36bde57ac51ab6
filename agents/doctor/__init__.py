"""`hanse agent doctor`: what stands between this site and its first job, one line each."""
