"""Late events into place: a stream goes back to before the event and is stepped again.

Rule: afterwards the stream's state equals that of a stream that saw the events in their order of time.
Does not know: transports, publishing, commits.
"""
