"""Reads the parts of an observation: what the text of a cell or the value of a member means.

Tables of training, files, topics and history use the same functions, so a form that one of them accepts means the same
in all of them. A form with one meaning is accepted; one with two is refused, with what to write in its place.

Owns: the accepted forms of an id, a time, a number and a category; text files (encoding, gzip, rows of CSV, lines of
JSON); and doubts about the unit of times. Does not know: settings, flags, records, tables, models.
"""
