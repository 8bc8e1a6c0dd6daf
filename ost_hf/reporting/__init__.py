"""What people look at, made from tables and result files."""
