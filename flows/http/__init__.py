"""What every HTTP service shares: error answers, bearer tokens, signatures."""
