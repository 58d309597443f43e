"""Label Studio: its HTTP API behind the interface of `adapters.base`.

Takes items, ontologies and annotations and returns what the server holds. Everything that is peculiar to
Label Studio's API and configuration language stays in here.
"""
