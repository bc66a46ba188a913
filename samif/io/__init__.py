"""Files written whole, digests of content, addresses without secrets."""
