"""What can go wrong between Flickr's feed and a stored photo (one argument each: see viewer/errors.py)."""


class PhotoError(Exception):
    """No photo was saved; nothing was left behind."""


class FeedUnreachable(PhotoError):
    """The feed did not answer, or not in time, or with an error."""


class FeedMalformed(PhotoError):
    """The feed answered with something that is no feed, or names no picture."""


class PictureUnreachable(PhotoError):
    """The picture could not be downloaded."""


class PictureTooLarge(PhotoError):
    """The picture has more bytes or pixels than allowed."""


class NotAPicture(PhotoError):
    """What was downloaded is no complete image of a known kind."""
