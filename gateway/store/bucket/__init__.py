"""The store in a bucket of an object store: S3, Google Cloud Storage, Azure, and what speaks their protocols.

Objects below the prefix of the URL, with ``<roi>`` the path of `RoiKey.path`:

- ``objects/<roi>/<sha256>.<8 digits>``: the content of a file, or a list of files, named by its SHA-256. It is written
  once and never changed. The digits make every name new, so that cleaning up never meets a name that is written again.
- ``pointers/<roi>``: names the list of the files that the ROI has. It is the only object of an ROI that changes, by a
  PUT on the condition that it is still what the writer has read (``If-Match``, for a new one ``If-None-Match``). Every
  body has a random part: an ETag is a checksum, and would come back with the same content. A deleted ROI keeps a
  pointer without a list.
- ``audit/<roi>/<time>-<id>``: a line of the audit trail. It is created, never replaced.
- ``notes/…``: small files that belong to no ROI, changed on the same condition.
- ``probe/…``: what `self_test` writes and removes.

Reading. A gateway keeps the list of each ROI that it has read, and asks for its pointer by ETag at most every
`GATEWAY_STORE_POLL_S`. Contents go through a cache on its disk, bounded by bytes, and are checked against their name.
While the bucket does not answer, what is known answers, and readers do not wait: a reader that knows an older answer
waits a second at most, and one that knows nothing is refused at once after the first timeout.

Writing. There are no locks between gateways. A writer uploads contents, then a new list, then moves the pointer. If
another writer was faster, it reads the new list. Where the files that it has seen in its part of the ROI are the same,
it puts its changes on top of the new list and tries again. Where they are not, it has lost (429), and nothing was
changed. Each list has the last moves, so that a writer whose PUT had no answer finds out what became of it. Writers of
one gateway wait for each other.

Tokens of images stay in the cache of the gateway that computed them. They are large, and others compute them again.

Contents that no list names any more are removed an hour later, when the ROI changes or a gateway starts.
"""
