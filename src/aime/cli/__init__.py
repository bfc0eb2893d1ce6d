"""The command line: one module a verb, each with a `main(arguments) -> status`."""
