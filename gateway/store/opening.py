"""Open the storage that the settings name."""

from pathlib import Path
from zlib import crc32

from gateway.setting_names import SettingsError
from gateway.settings import Settings
from gateway.store.folder_storage import FolderStorage
from gateway.store.place import Storage


def open_storage(settings: Settings, where: Path | str | None = None) -> Storage:
    """Return a storage without reading anything of it.

    Args:
        settings: of the gateway.
        where: folder or URL; by default GATEWAY_MODELS_DIR.

    Raises:
        SettingsError: a URL that cannot be used, or obstore is not installed.
    """
    where = settings.models_dir if where is None else where
    if isinstance(where, Path):
        return FolderStorage(where)
    try:
        from gateway.store.bucket.storage import BucketStorage
    except ImportError as error:
        raise SettingsError(
            f"GATEWAY_MODELS_DIR: {where} needs obstore, which is not installed: install the extra 'bucket'"
        ) from error
    try:
        return BucketStorage(
            where,
            cache=settings.cache_dir / "store" / f"{crc32(where.encode()):08x}",
            cache_bytes=settings.store_cache_bytes,
            poll_s=settings.store_poll_s,
        )
    except ValueError as error:
        raise SettingsError(f"GATEWAY_MODELS_DIR: {error}") from error
