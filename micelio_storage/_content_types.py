"""The content type that a key's extension says: a table of ours, so that it is the same on every machine and driver.

The names are those that IANA has registered, and where it has none, those in use. (`mimetypes` of the standard library
reads files of the machine, and so says `.ts` is a video here and a script there.)
"""

from __future__ import annotations

from ._info import DEFAULT_CONTENT_TYPE

_TEXT = "text/plain"
_BY_EXTENSION = {
    # text and code
    "bash": "application/x-sh", "c": "text/x-c", "cc": "text/x-c", "cfg": _TEXT, "cpp": "text/x-c",
    "css": "text/css", "csv": "text/csv", "diff": "text/x-diff", "ex": "text/x-elixir", "exs": "text/x-elixir",
    "go": "text/x-go", "h": "text/x-c", "hpp": "text/x-c", "htm": "text/html", "html": "text/html",
    "ics": "text/calendar", "ini": _TEXT, "java": "text/x-java", "js": "text/javascript", "jsx": "text/jsx",
    "log": _TEXT, "lua": "text/x-lua", "markdown": "text/markdown", "md": "text/markdown",
    "mjs": "text/javascript", "patch": "text/x-diff", "php": "application/x-httpd-php", "pl": "text/x-perl",
    "py": "text/x-python", "rb": "text/x-ruby", "rs": "text/x-rust", "rst": "text/x-rst",
    "rtf": "application/rtf", "scss": "text/x-scss", "sh": "application/x-sh", "sql": "application/sql",
    "srt": "application/x-subrip", "swift": "text/x-swift", "tex": "application/x-tex", "text": _TEXT,
    "ts": "text/typescript", "tsv": "text/tab-separated-values", "tsx": "text/tsx", "txt": _TEXT,
    "vtt": "text/vtt", "vue": "text/x-vue",
    # data
    "arrow": "application/vnd.apache.arrow.file", "avro": "application/avro", "geojson": "application/geo+json",
    "ipynb": "application/x-ipynb+json", "json": "application/json", "jsonl": "application/jsonl",
    "jsonld": "application/ld+json", "map": "application/json", "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet", "sqlite": "application/vnd.sqlite3",
    "toml": "application/toml", "wasm": "application/wasm", "webmanifest": "application/manifest+json",
    "xml": "application/xml", "yaml": "application/yaml", "yml": "application/yaml",
    # pictures
    "apng": "image/apng", "avif": "image/avif", "bmp": "image/bmp", "gif": "image/gif", "heic": "image/heic",
    "ico": "image/vnd.microsoft.icon", "jpeg": "image/jpeg", "jpg": "image/jpeg", "jxl": "image/jxl",
    "png": "image/png", "svg": "image/svg+xml", "tif": "image/tiff", "tiff": "image/tiff", "webp": "image/webp",
    # sound and film
    "aac": "audio/aac", "flac": "audio/flac", "m4a": "audio/mp4", "mid": "audio/midi", "mp3": "audio/mpeg",
    "oga": "audio/ogg", "ogg": "audio/ogg", "opus": "audio/ogg", "wav": "audio/wav", "weba": "audio/webm",
    "avi": "video/x-msvideo", "mkv": "video/matroska", "mov": "video/quicktime", "mp4": "video/mp4",
    "mpeg": "video/mpeg", "ogv": "video/ogg", "webm": "video/webm",
    # archives
    "7z": "application/x-7z-compressed", "br": "application/x-brotli", "bz2": "application/x-bzip2",
    "gz": "application/gzip", "jar": "application/java-archive", "rar": "application/vnd.rar",
    "tar": "application/x-tar", "tgz": "application/gzip", "whl": "application/zip", "xz": "application/x-xz",
    "zip": "application/zip", "zst": "application/zstd",
    # documents and fonts
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "epub": "application/epub+zip", "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet", "odt": "application/vnd.oasis.opendocument.text",
    "pdf": "application/pdf", "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "otf": "font/otf", "ttf": "font/ttf", "woff": "font/woff", "woff2": "font/woff2",
}  # fmt: skip


def content_type_of(key: str) -> str:
    """What the extension of the key's last segment says, in any case of letters; else "application/octet-stream"."""
    if "." not in key:
        return DEFAULT_CONTENT_TYPE
    name, dot, extension = key.rpartition("/")[2].rpartition(".")
    return _BY_EXTENSION.get(extension.lower(), DEFAULT_CONTENT_TYPE) if name and dot else DEFAULT_CONTENT_TYPE
