"""Small data sets in the official layouts of MovieLens, and archives of them."""

from __future__ import annotations

import io
import zipfile

Layout = dict[str, bytes]

U_DATA = "2\t1\t3\t881250949\n1\t2\t5\t891717742\n2\t3\t1\t878887116\n"
U_ITEM = (
    "1|Toy Story (1995)|01-Jan-1995||http://a/b|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "2|Misérables, Les (1995)|01-Jan-1995|||0|0|0|0|0|0|0|0|1|0|0|0|1|0|0|0|0|0|0\n"
    "3|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
)
U_USER = "1|24|M|technician|85711\n2|53|F|other|V3N4P\n"
RATINGS_DAT = "1::10::5::978300760\n1::30::3::978302109\n2::20::4::978301968\n"
MOVIES_DAT = (
    "10::Toy Story (1995)::Animation|Children's|Comedy\n"
    "20::Misérables, Les (1995)::Drama|Musical\n"
    "30::Face::Off: The Movie (1997)::Action\n"
)
USERS_DAT = "1::F::1::10::48067\n2::M::56::16::02460\n"
RATINGS_10M = RATINGS_DAT.replace("::3::", "::3.5::")
RATINGS_CSV = "userId,movieId,rating,timestamp\r\n1,10,4.0,964982703\r\n1,30,0.5,964981247\r\n7,20,4.5,964982224\r\n"
MOVIES_CSV = (
    "movieId,title,genres\r\n"
    "10,Toy Story (1995),Adventure|Animation\r\n"
    '20,"Misérables, Les (1995)",Drama\r\n'
    '30,"Say ""Hi"": A Story",(no genres listed)\r\n'
)
CSV: Layout = {"ratings.csv": RATINGS_CSV.encode(), "movies.csv": MOVIES_CSV.encode()}

LAYOUTS: dict[str, tuple[str, Layout]] = {
    "100k": (
        "ml-100k",
        {"u.data": U_DATA.encode(), "u.item": U_ITEM.encode("latin-1"), "u.user": U_USER.encode()},
    ),
    "1m": (
        "ml-1m",
        {
            "ratings.dat": RATINGS_DAT.encode(),
            "movies.dat": MOVIES_DAT.encode("latin-1"),
            "users.dat": USERS_DAT.encode(),
        },
    ),
    "10m": ("ml-10M100K", {"ratings.dat": RATINGS_10M.encode(), "movies.dat": MOVIES_DAT.encode()}),
    **{key: (f"ml-{key}", CSV) for key in ("20m", "25m", "32m", "latest-small")},
}


def zipped(members: dict[str, bytes]) -> bytes:
    """An archive of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def official(key: str) -> bytes:
    """The archive of the small layout of an edition."""
    folder, files = LAYOUTS[key]
    return zipped({f"{folder}/{name}": content for name, content in files.items()})
