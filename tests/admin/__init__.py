"""The monitor, page by page, over HTTP as a browser sees it."""
