"""Keys and prefixes that every driver must keep, and that every driver must refuse: data, and nothing else."""

from __future__ import annotations

from pathlib import PurePosixPath

REFUSED_KEYS: tuple[tuple[str, str], ...] = (
    # segments that are nothing, or lead elsewhere
    ("", "empty"),
    (".", "a dot"),
    ("..", "two dots"),
    ("./a", "a dot in front"),
    ("a/./b", "a dot inside"),
    ("../a", "up and out"),
    ("../" * 10 + "etc/passwd", "far up and out"),
    ("a/..", "down and up"),
    ("a/../b", "a detour to another key"),
    ("a/../../b", "down once, up twice"),
    ("a/b/../../../c", "out at the third turn"),
    ("../sessions-secret/x", "a sibling whose name begins like ours"),
    ("....//....//etc/passwd", "what is left of it after removing '../' once"),
    ("..././..././etc/passwd", "the same, nested"),
    ("a//../b", "nothing, then up"),
    ("/", "a slash"),
    ("//", "two slashes"),
    ("/a", "absolute"),
    ("/etc/passwd", "absolute, and a real file"),
    ("//etc/passwd", "absolute twice"),
    ("///a", "absolute three times"),
    ("a/", "a slash at the end"),
    ("a//", "two slashes at the end"),
    ("a//b", "an empty segment"),
    ("a///b", "two empty segments"),
    ("a/b/", "a directory"),
    ("a/ /../b", "up, behind a blank"),
    ("sessions/../../x", "out through the store's own layout"),
    ("sessions/s1/files/../../s2/metadata.json", "over into another session"),
    ("files/../metadata.json", "over into the session's metadata"),
    # control characters
    ("\x00", "NUL alone"),
    ("a\x00", "NUL at the end"),
    ("a\x00b", "NUL inside"),
    ("../../etc/passwd\x00.jpg", "NUL before a harmless suffix"),
    ("a\nb", "a line feed"),
    ("a\r\nX-Amz-Acl: public-read", "a header of its own"),
    ("a\tb", "a tab"),
    ("a\x0bb", "a vertical tab"),
    ("a\x0cb", "a form feed"),
    ("a\x1bb", "an escape"),
    ("a\x08b", "a backspace"),
    ("a\x01b", "the first control but NUL"),
    ("a\x1fb", "the last control before the blank"),
    ("a\x80b", "the first of C1"),
    ("a\x85b", "NEL, which ends a line for Python"),
    ("\n", "a line feed alone"),
    ("a/\x07/b", "a bell for a segment"),
    ("a\n/b", "a line feed before a slash"),
    ("valid\n", "a line feed where '$' matches"),
    ("a/\x00../b", "NUL and dots"),
    ("a/..\x00/b", "dots and NUL"),
    ("..\n/a", "dots behind a line feed"),
    ("a/.\x00./b", "two dots once NUL is taken out"),
    ("a/.\x7f./b", "two dots once DEL is taken out"),
    # what is no text, or no text that a listing can carry
    ("a\ud800b", "a lone high surrogate"),
    ("a\udc80b", "a byte that was smuggled in"),
    ("\udcff", "a smuggled byte alone"),
    ("\ud83d", "half a face"),
    ("a\ufffeb", "U+FFFE"),
    ("a\uffffb", "U+FFFF"),
    # too long
    ("a" * 256, "256 bytes in a segment"),
    ("\u20ac" * 86, "258 bytes in 86 characters"),
    ("\U0001f600" * 64, "256 bytes in 64 characters"),
    ("e\u0301" * 86, "258 bytes, decomposed"),
    ("/".join(["a" * 200] * 6), "1,205 bytes"),
    ("/".join(["\u20ac" * 85] * 5), "1,279 bytes in 429 characters"),
    ("a/" * 2100 + "b", "2,101 segments"),
    # backslashes
    ("..\\..\\etc\\passwd", "up and out of Windows"),
    ("..\\a", "up, with a backslash"),
    ("C:\\Windows\\win.ini", "a drive"),
    ("\\\\?\\C:\\x", "a long path of Windows"),
    ("\\\\.\\PhysicalDrive0", "a device of Windows"),
    ("a/..\\..\\b", "both kinds of slash"),
    # the store's own
    (".micelio", "reserved"),
    (".micelio/x", "below what is reserved"),
)

NO_KEYS: tuple[object, ...] = (
    None, b"a", bytearray(b"a"), 1, 1.5, True, ["a"], ("a",), {"a": 1}, object(), PurePosixPath("a/b"),
)  # fmt: skip

KEPT_PREFIXES: tuple[str, ...] = (
    "", "a", "a/", "a/b", "a/b/", "file", ".", "..f", "dir with space/", "%", "%2e%2e", "[a", "*", "?", "{",
)  # fmt: skip

REFUSED_PREFIXES: tuple[str, ...] = (
    "/", "/a", "//", "a//", "a//b", "..", "../", "../a", "./", "./a", "a/../", "a/..", "a/./", "\x00", "a\nb",
    "a\ud800", "a\\", "..\\", "a" * 1025,
)  # fmt: skip

# None of them is a directory of another: so all of them can live together, also on a disk.
KEPT_KEYS: tuple[str, ...] = (
    # plain ones, and words that some layer might take for something else
    "a", "0", "file.txt", "dir/file.txt", "sessions/s1/files/src/main.py", "sessions/s1/metadata.json", "metadata.json",
    "files/files/files", "README", "readme", "Readme", "None", "null", "true", "undefined", "1e5", "0x10", "007",
    # dots that lead nowhere
    ".env", ".git/config", ".gitignore", "..foo", "...", "....", "..a..", "a..b", "a..", "foo...bar", "n1/.b/..c/d..",
    ".-", "..;/a",
    # blanks, none of which is trimmed
    "with space.txt", "two  spaces", " leading", "trailing ", "n2/ b /c", " ", "nbsp\u00a0here",
    "ideographic\u3000space",
    # what a URL, a shell or a pattern would read differently
    "a+b", "a%2Bb", "a+b c+d", "1+1=2.txt", "100%", "a%", "%", "%%", "a%zzb", "%41", "a%20b", "a%2fb",
    "%2e%2e/%2e%2e/etc/passwd", "a%2Fb", "a%252Fb", "%00", "%0a", "a?b", "a?versionId=x", "?", "a#b", "#", "file#1",
    "a#123", "a&b=c", "a=b", "a;b", "a,b", "a:b", "a@b", "~", "~root/x", "http:/x", "[2001:db8::1]", "a!b", "a$b",
    "$HOME/x", "a'b", 'a"b', "a(b)c", "a*b",
    "*.txt", "**", "[abc].txt", "[a-z]*", "{a,b}", "a^b", "a`b", "`id`", "$(id)", "a|b", "a<b>c",
    "<script>alert(1)<|script>", "-rf", "--help", "-", "_", "a__b", "key=value/part=2024-01-01/x.parquet",
    "xmlns&lt;", "&amp;", "]]>", "a&b<c>d",
    # names that others keep for themselves
    "x.tmp", ".tmp", "a.part", "a.partial", "a.lock", "lock", ".lock", "a.attrs", "a.meta", "a.rclonelink", "a~",
    "__0x2f__", "a.__0x2e__", "tmp/x", ".DS_Store", "CON", "nul", "NUL.txt", "com1", "LPT1.log", "AUX/x", "a.", "a. ",
    "a:stream", "a::$DATA", "desktop.ini", ".micelio-", ".miceli/o", "x/.micelio",
    # letters of all kinds: composed and not, folding and not, right to left, of no width
    "caf\u00e9", "cafe\u0301", "\u00c5", "\u212b", "A\u030a", "\ufb01le", "\u0131\u0130iI", "stra\u00dfe", "STRASSE",
    "\u03c3\u03c2\u03a3", "\u65e5\u672c\u8a9e/\u30d5\u30a1\u30a4\u30eb.txt", "\ud55c\uad6d\uc5b4",
    "\u4e2d\u6587 \u7a7a\u683c", "\u0645\u0631\u062d\u0628\u0627.txt", "\u05e9\u05dc\u05d5\u05dd",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0939\u093f\u0928\u094d\u0926\u0940", "\U0001f600.png",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467.jpg", "\U0001f1e6\U0001f1fa/flag", "\u2764\ufe0f", "zero\u200bwidth",
    "\u200fRLM", "\ufeffBOM", "line\u2028end", "\ue000", "\U0010fffd",
    # what only looks like a dot or a slash
    "\uff0e\uff0e/x", "\uff0f", "\u2024\u2024/y", "\u2215", "\u29f8",
    # UTF-8 and UTF-16 put these two in different orders
    "\uffe5", "\U00010000",
    # as long, and as deep, as can be
    "s" * 255, "d" * 255 + "/" + "f" * 255, "\u20ac" * 85, "\U0001f600" * 63, "x" * 251 + ".bin",
    "/".join(["d" * 20] * 24), "/".join(["n"] * 250), "/".join(["a" * 99] * 8),
    # neighbours of a slash
    "p", "p-1", "p.1", "p1", "p0/x", "p!/x", "p-/x",
)  # fmt: skip
