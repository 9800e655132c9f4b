"""TICKIT's calendar and the words of its made-up rows: people, places, titles. The eleven categories are its own."""

from __future__ import annotations

from datetime import date, datetime

FIRST_DATE_ID = 1827
FIRST_DAY = date(2008, 1, 1)  # its one year

CATEGORIES = [
    (1, "Sports", "MLB", "Major League Baseball"),
    (2, "Sports", "NHL", "National Hockey League"),
    (3, "Sports", "NFL", "National Football League"),
    (4, "Sports", "NBA", "National Basketball Association"),
    (5, "Sports", "MLS", "Major League Soccer"),
    (6, "Shows", "Musicals", "Musical theatre"),
    (7, "Shows", "Plays", "All non-musical theatre"),
    (8, "Shows", "Opera", "All opera and light opera"),
    (9, "Concerts", "Pop", "All rock and pop music concerts"),
    (10, "Concerts", "Jazz", "All jazz singers and bands"),
    (11, "Concerts", "Classical", "All symphony, concerto, and choir concerts"),
]

FIRST_NAMES = """
Abel Ada Akira Alma Amara Amir Anika Ansel Aoife Ariel Astrid Aurel Bea Benno Bianca Boris Bruno Caleb Carmen Cedric
Chidi Clara Colin Cosima Dalia Darius Delia Dmitri Dora Edda Edgar Elif Elio Emre Enid Erik Esra Ezra Fabio Farah
Felix Fiona Flora Freya Gero Gita Greta Gustav Hana Harald Hedy Hugo Ida Ilya Imani Ines Ingrid Isak Ivo Jada Jarek
Jonas Juno Kaito Karim Katya Keiko Kofi Lars Leila Lena Leon Lila Linus Lorna Louis Luca Lydia Mads Maeve Malik Mara
Marek Marta Mateo Maya Milan Mina Mira Nadia Nanako Naveen Nell Niko Nina Noor Nora Odin Olga Omar Otis Otto Paloma
Pavel Pia Piotr Priya Quinn Rafael Rania Rhea Rosa Ruben Runa Sami Sanna Selma Sven Tahir Talia Tamar Tariq Theo Tilda
Tomas Uma Ursula Vera Viktor Wanda Xenia Yara Yusuf Zadie Zeno Zora
""".split()

LAST_NAMES = """
Abbott Adler Aksoy Albrecht Alvarez Anders Archer Arslan Ashby Baker Balint Barros Baum Becker Berg Bianchi Blom Bose
Brandt Braun Bright Brook Cabral Calder Cano Castro Chandra Chen Clarke Cohen Conti Costa Crane Cruz Dahl Danso Das
Delgado Demir Diaz Dietrich Dorn Drake Duarte Dunn Ebert Egan Ekman Ellis Engel Eriksen Farkas Faust Ferrari Fischer
Fleming Flores Fontaine Forsberg Fox Frost Fujita Gallo Garcia Gerber Gomez Grant Greco Gruber Gupta Haas Hagen Hahn
Hansen Harper Hayashi Heller Hendrix Hoang Holm Horvath Ibarra Ikeda Ivanov Iyer Jansen Jensen Joshi Kahn Kamau Kaplan
Keller Khan Kimura Klein Kowalski Kraus Kumar Lam Lang Larsen Leclerc Lehmann Lindgren Lopez Lund Maier Marin Martens
Mayer Mendez Mensah Meyer Moreau Moreno Mori Moser Nagy Nair Navarro Nguyen Nilsson Novak Oduya Okafor Olsen Ortega
Osman Otieno Pace Palmer Park Patel Peretz Petrov Pham Pohl Popov Quint Ramos Rao Reyes Richter Rossi Roth Rubin Ruiz
Saito Salas Sandoval Santos Sato Schmid Schulz Seidel Serrano Shah Silva Singh Sokolov Soler Sommer Stark Steiner Storm
Sutter Suzuki Svensson Takeda Tanaka Thorne Toth Tran Ueda Urban Vargas Vega Vogel Wagner Walsh Weber Weiss Werner Wolf
Yamada Yilmaz Zhou Zimmer Zola
""".split()

CITIES = [
    ("Albany", "NY"), ("Albuquerque", "NM"), ("Anchorage", "AK"), ("Atlanta", "GA"), ("Austin", "TX"),
    ("Baltimore", "MD"), ("Baton Rouge", "LA"), ("Birmingham", "AL"), ("Boise", "ID"), ("Boston", "MA"),
    ("Boulder", "CO"), ("Buffalo", "NY"), ("Burlington", "VT"), ("Charleston", "SC"), ("Charlotte", "NC"),
    ("Chicago", "IL"), ("Cincinnati", "OH"), ("Cleveland", "OH"), ("Columbus", "OH"), ("Dallas", "TX"),
    ("Denver", "CO"), ("Des Moines", "IA"), ("Detroit", "MI"), ("El Paso", "TX"), ("Eugene", "OR"),
    ("Fargo", "ND"), ("Fresno", "CA"), ("Hartford", "CT"), ("Honolulu", "HI"), ("Houston", "TX"),
    ("Indianapolis", "IN"), ("Jackson", "MS"), ("Kansas City", "MO"), ("Knoxville", "TN"), ("Las Vegas", "NV"),
    ("Lincoln", "NE"), ("Little Rock", "AR"), ("Los Angeles", "CA"), ("Louisville", "KY"), ("Madison", "WI"),
    ("Memphis", "TN"), ("Miami", "FL"), ("Milwaukee", "WI"), ("Minneapolis", "MN"), ("Missoula", "MT"),
    ("Nashville", "TN"), ("New Orleans", "LA"), ("New York City", "NY"), ("Newark", "NJ"), ("Norfolk", "VA"),
    ("Oakland", "CA"), ("Oklahoma City", "OK"), ("Omaha", "NE"), ("Orlando", "FL"), ("Philadelphia", "PA"),
    ("Phoenix", "AZ"), ("Pittsburgh", "PA"), ("Portland", "OR"), ("Providence", "RI"), ("Raleigh", "NC"),
    ("Reno", "NV"), ("Richmond", "VA"), ("Sacramento", "CA"), ("Salt Lake City", "UT"), ("San Antonio", "TX"),
    ("San Diego", "CA"), ("San Francisco", "CA"), ("San Jose", "CA"), ("Santa Fe", "NM"), ("Savannah", "GA"),
    ("Seattle", "WA"), ("Sioux Falls", "SD"), ("Spokane", "WA"), ("St. Louis", "MO"), ("Tampa", "FL"),
    ("Toledo", "OH"), ("Tucson", "AZ"), ("Tulsa", "OK"), ("Washington", "DC"), ("Wichita", "KS"),
]  # fmt: skip

# kind of venue, and whether its seats are counted (theatres' are not, as in the sample database)
VENUE_KINDS = [("Arena", True), ("Theatre", False), ("Stadium", True)]

MAIL_HOSTS = ("example.com", "example.net", "example.org", "mail.example.com")

_MUSICAL = """
Lantern Street|The Paper Kite|Seven Bridges|Harbour Lights|The Clockmaker's Daughter|Midnight Tram|Copper Moon|Marigold
|The Last Carousel|Silverline|Northern Express|Sugar and Smoke|The Glass Piano|Tightrope|Blue Monday Girls
|Ballroom Nine|The Tailor of Lisbon|Firefly Summer|Hello Meridian|Twelve Umbrellas
"""
_PLAY = """
A House of Echoes|The Third Witness|Salt and Ashes|Dinner at the Embassy|The Cartographer|Winter Garden|Two Sisters
|The Understudy's Tale|An Honest Man|The Long Corridor|Letters from Trieste|The Orchard Keeper|Under Grey Skies
|The Visitor at Dawn|Rehearsal for a Storm|The Borrowed Coat|Four Chairs|The Quiet Juror|Night Ferry
|A Modest Inheritance
"""
_OPERA = """
Aida|La Traviata|Tosca|Carmen|The Magic Flute|Don Giovanni|La Boheme|Rigoletto|Turandot|Fidelio|Der Rosenkavalier
|Eugene Onegin|Nabucco|Parsifal|Orfeo ed Euridice|The Barber of Seville
"""
_BAND_FIRST = "Amber Broken Electric Golden Hidden Iron Lonely Neon Paper Quiet Red Silver Static Velvet Wild Winter"
_BAND_SECOND = """
Antlers Arcade Avenue Cables Canyon Comets Dynamos Engines Falcons Foxes Gardens Harbors Horizon Islands Kites Lakes
Lanterns Machines Meadows Mirrors Mountains Orbits Pilots Rivers Satellites Shadows Signals Sparrows Thieves Tigers
Tramways Valley Wolves
""".split()


def _titles(text: str) -> list[str]:
    return [title.strip() for title in text.replace("\n", "").split("|")]


_POP = [f"{first} {second}" for second in _BAND_SECOND for first in _BAND_FIRST.split()]
_SHOWS = [_titles(_MUSICAL), _titles(_PLAY), _titles(_OPERA)]

# Event names by category; 576 in all, as in the sample database.
TITLES = {
    6: _SHOWS[0],
    7: _SHOWS[1],
    8: _SHOWS[2],
    9: _POP[: 576 - sum(map(len, _SHOWS))],
}


def day_of(moment: datetime) -> int:
    """The dateid of a moment in TICKIT's year."""
    return FIRST_DATE_ID + (moment.date() - FIRST_DAY).days
