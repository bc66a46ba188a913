"""The web console of workspaces: label, review, compare and promote in a browser, on the functions of the CLI."""
