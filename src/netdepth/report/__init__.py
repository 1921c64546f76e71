"""What a person reads: tables, figures, summaries, made from run folders."""
