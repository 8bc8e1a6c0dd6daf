"""Many runs side by side: plan, workers, results, statistics, tables and plots."""
