"""What an unknown topic or file contains, and which settings fit it.

`sample` reads some records, `columns` takes them apart, `fields` says which members are stream, time and observation,
`layout` which format they have, `profile` has the figures of their streams, `choice` chooses settings, `settings_file`
writes them, and `check` compares settings that exist with the topic.

Rule: nothing is written to a broker, and no group is joined. Figures come from events that the decoder of the service
has read with the proposed settings, so they are those that the service will see.
Does not know: how the result is printed.
"""
