"""Parts that all HTTP services share: error answers, bearer tokens, signed webhooks."""
