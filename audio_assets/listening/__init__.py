"""The listening page: one static page with its data beside it, to see and hear rows of `audio_table`.

It needs no server beyond static files: it opens from a disk as well as from a bucket over HTTP. So all that
the page reads comes as scripts, for a page that is opened from a disk may fetch nothing else.

    page.py       `make_page`: a slice of the table -> the files of a page, written where it lies
    selection.py  which rows a page shows, in batches; those that need an ear first where they are too many
    columns.py    rows -> typed columns as scripts; the exact schema of the data
    clips.py      the audio: where a page links to it, and copies of it as scripts
    publish.py    the files of a page onto a store, so that no reader sees half of a page

The page itself lies in `static/`: HTML, CSS and plain JavaScript, as browsers read it.
"""

from audio_assets.listening.page import Made, Slice, make_page

__all__ = ["Made", "Slice", "make_page"]
