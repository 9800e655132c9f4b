"""Redshift's format strings (TO_CHAR, TO_DATE, TO_TIMESTAMP, TO_NUMBER) in DuckDB's SQL; only literal ones."""

from __future__ import annotations

import datetime as dt
import re

from sqlglot import exp

from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented

# What strftime and strptime know. Source: "Datetime format strings".
_PRINTED = {
    "YYYY": "%Y", "YY": "%y", "MM": "%m", "MON": "%b", "Mon": "%b", "mon": "%b", "MONTH": "%B", "Month": "%B",
    "month": "%B", "DD": "%d", "DDD": "%j", "DAY": "%A", "Day": "%A", "day": "%A", "DY": "%a", "Dy": "%a", "dy": "%a",
    "HH24": "%H", "HH12": "%I", "HH": "%I", "MI": "%M", "SS": "%S", "MS": "%g", "US": "%f", "AM": "%p", "PM": "%p",
    "am": "%p", "pm": "%p",
}  # fmt: skip
_COMPUTED = {
    "Q": "CAST(quarter({0}) AS VARCHAR)", "D": "CAST(dayofweek({0}) + 1 AS VARCHAR)",
    "WW": "lpad(CAST((dayofyear({0}) - 1) // 7 + 1 AS VARCHAR), 2, '0')",
    "IW": "lpad(CAST(weekofyear({0}) AS VARCHAR), 2, '0')", "IYYY": "CAST(isoyear({0}) AS VARCHAR)",
    "J": "CAST(CAST(julian(CAST({0} AS DATE)) AS INTEGER) AS VARCHAR)", "CC": "CAST(century({0}) AS VARCHAR)",
    "SSSS": "CAST(CAST(epoch({0}) AS BIGINT) % 86400 AS VARCHAR)", "W": "CAST((day({0}) - 1) // 7 + 1 AS VARCHAR)",
}  # fmt: skip
_NOT_HERE = ("RM", "TZ", "OF", "IDDD", "ID", "IYY", "IY", "YYY", "Y,YYY", "BC", "AD", "TH", "SP")
_PADDED = {"MONTH": 9, "Month": 9, "month": 9, "DAY": 9, "Day": 9, "day": 9}
_WORDS = sorted([*_PRINTED, *_COMPUTED, *_NOT_HERE], key=len, reverse=True)
_TOKEN = re.compile("|".join([r'"[^"]*"', "FM", *map(re.escape, _WORDS), "."]), re.DOTALL | re.IGNORECASE)
_UPPER = {word.upper(): word for word in _WORDS if word.isupper()}


def group_references(replacement: str) -> str:
    """`$1` of REGEXP_REPLACE as DuckDB writes it."""
    return re.sub(r"\$(\d)", r"\\\1", replacement.replace("\\", "\\\\"))


def _literal(pattern: exp.Expr, what: str) -> str:
    if not (isinstance(pattern, exp.Literal) and pattern.is_string):
        raise not_implemented(f"a format of {what} that is not a literal")
    return str(pattern.this)


def _tokens(pattern: exp.Expr, what: str) -> list[str]:
    found = []
    for token in _TOKEN.findall(_literal(pattern, what)):
        word = token if token in _PRINTED else _UPPER.get(token.upper(), token)
        if word in _NOT_HERE:
            raise not_implemented(f"{token} in a format of {what}")
        found.append(word)
    return found


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sql(text: str) -> exp.Expr:
    found: exp.Expr = exp.maybe_parse(text, dialect="duckdb")
    for node in found.walk():
        node.meta["ours"] = True
    return exp.Paren(this=found)


def moment_to_char(moment: exp.Expr, pattern: exp.Expr) -> exp.Expr:
    """TO_CHAR of a date or timestamp. `FM` takes the blanks and zeros off what follows it."""
    subject, pieces, plain = f"({moment.sql('duckdb')})", [], False
    for token in _tokens(pattern, "TO_CHAR"):
        if token.upper() == "FM":
            plain = True
            continue
        pieces.append(_piece(token, subject, plain))
        plain = False
    return _sql(" || ".join(pieces) or "''")


def _piece(token: str, subject: str, plain: bool) -> str:
    if token in _COMPUTED:
        return _COMPUTED[token].format(subject)
    if token not in _PRINTED:
        return _quoted(token.strip('"') if len(token) > 1 else token)
    printed = f"strftime({subject}, '{_PRINTED[token]}')"
    if token.isupper():
        printed = f"upper({printed})"
    elif token.islower():
        printed = f"lower({printed})"
    if plain:
        return f"ltrim({printed}, '0')"
    return f"rpad({printed}, {_PADDED[token]}, ' ')" if token in _PADDED else printed


# Parts that may be too large where a format is not strict: June 31 is July 1.
_OVERFLOWING = {
    "YYYY": "to_years(CAST({0} AS INTEGER) - 1)", "MM": "to_months(CAST({0} AS INTEGER) - 1)",
    "DD": "to_days(CAST({0} AS INTEGER) - 1)", "HH24": "to_hours(CAST({0} AS BIGINT))",
    "MI": "to_minutes(CAST({0} AS BIGINT))", "SS": "to_seconds(CAST({0} AS DOUBLE))",
}  # fmt: skip


def _parsed(value: exp.Expr, pattern: exp.Expr, what: str, strict: bool) -> str:
    tokens = [token for token in _tokens(pattern, what) if token.upper() != "FM"]
    code = ""
    for token in tokens:
        if token in _COMPUTED:
            raise not_implemented(f"{token} in a format of {what}")
        code += _PRINTED.get(token, _plain(token).replace("%", "%%"))
    subject = value.sql("duckdb")
    exactly = f"strptime({subject}, {_quoted(code)})"
    if strict or "YYYY" not in tokens or any(one in _PRINTED and one not in _OVERFLOWING for one in tokens):
        return exactly
    shape = "".join(rf"(\d{{1,{len(one[:4])}}})" if one in _OVERFLOWING else re.escape(_plain(one)) for one in tokens)
    parts = [one for one in tokens if one in _OVERFLOWING]
    digits = [f"regexp_extract({subject}, {_quoted(shape)}, {at})" for at in range(1, len(parts) + 1)]
    added = " + ".join(_OVERFLOWING[part].format(digit) for part, digit in zip(parts, digits, strict=True))
    return (
        f"CASE WHEN try_strptime({subject}, {_quoted(code)}) IS NULL AND regexp_full_match({subject}, "
        f"{_quoted(shape)}) THEN TIMESTAMP '0001-01-01' + {added} ELSE {exactly} END"
    )


def _plain(token: str) -> str:
    """Text of a format that stands for itself."""
    return token.strip('"') if len(token) > 1 else token


def to_date(value: exp.Expr, pattern: exp.Expr, *, strict: bool) -> exp.Expr:
    return _sql(f"CAST({_parsed(value, pattern, 'TO_DATE', strict)} AS DATE)")


def to_timestamp(value: exp.Expr, pattern: exp.Expr, *, strict: bool) -> exp.Expr:
    return _sql(f"CAST({_parsed(value, pattern, 'TO_TIMESTAMP', strict)} AS TIMESTAMPTZ)")


# "Datetime literals": dates other than ISO's; the month comes first (DateStyle MDY).
_DATES = (
    "%m/%d/%Y", "%m/%d/%y", "%m-%d-%Y", "%Y/%m/%d", "%Y%m%d", "%Y.%j", "%B %d, %Y", "%b %d, %Y", "%B %d %Y", "%b %d %Y",
    "%d %B %Y", "%d %b %Y", "%d-%b-%Y", "%d-%B-%Y", "%b-%d-%Y", "%Y-%b-%d",
)  # fmt: skip
_TIME = re.compile(
    r"(.+?)(?:[ T](\d{1,2}:\d{2})(:\d{2}(?:\.\d+)?)?\s*([AP]M\b)?\s*([+-]\d{1,2}(?::?\d{2})?|[A-Z]\S*)?)?$", re.I
)


def moment(written: str) -> str:
    """The text of a date or timestamp as DuckDB reads it; unchanged where it is none that is known here."""
    found = _TIME.match(written.strip())
    if found is None:
        return written
    day, clock, seconds, half, zone = found.groups()
    date = _date(day)
    if date is None:
        return written
    if clock is None:
        return date
    hour, minute = clock.split(":")
    if half:
        hour = str(int(hour) % 12 + (12 if half.upper() == "PM" else 0))
    named = zone and zone[0] not in "+-" and zone.upper() != "Z"
    return f"{date} {hour.zfill(2)}:{minute}{seconds or ':00'}{' ' if named else ''}{zone or ''}"


def _date(written: str) -> str | None:
    if re.fullmatch(r"\d{4}-\d{1,2}-\d{1,2}", written):
        return written
    today = dt.datetime.now(dt.UTC).date()
    days = {"today": 0, "yesterday": -1, "tomorrow": 1}
    if written.lower() in days:
        return str(today + dt.timedelta(days=days[written.lower()]))
    for code in _DATES:
        try:
            return str(dt.datetime.strptime(written, code).date())
        except ValueError:
            continue
    return None


_NUMBER = re.compile(r"(FM)?([L$]?)(S|MI|)([09,G]*)(?:([.D])([09]*))?(S|MI|PR|)$")


def number_to_char(value: exp.Expr, pattern: exp.Expr) -> exp.Expr:
    """TO_CHAR of a number: 9, 0, the decimal point, thousands, a currency sign, S, MI, PR and FM."""
    found = _NUMBER.match(_literal(pattern, "TO_CHAR"))
    if found is None:
        raise not_implemented(f"the number format {pattern.this!r} of TO_CHAR")
    plain, currency, before, whole, point, decimals, after = (group or "" for group in found.groups())
    digits = whole.replace(",", "").replace("G", "")
    width = len(whole) + (len(decimals) + 1 if point else 0)
    subject = f"abs(round(CAST({value.sql('duckdb')} AS DECIMAL(38, {len(decimals)})), {len(decimals)}))"
    grouped = "," if len(digits) != len(whole) else ""
    shown = f"format('{{:{grouped}.{len(decimals)}f}}', CAST({subject} AS DOUBLE))"
    if digits.startswith("0"):
        shown = f"lpad({shown}, {width}, '0')"
    elif forced := len(digits.lstrip("9")):  # zeros stand from the first 0 on
        least = forced + width - len(whole)
        shown = f"lpad({shown}, greatest(length({shown}), {least})::INTEGER, '0')"
    elif decimals:
        shown = f"CASE WHEN {subject} < 1 THEN ltrim({shown}, '0') ELSE {shown} END"
    if plain and (spare := len(decimals) - decimals.rfind("0") - 1):
        shown = f"regexp_replace({shown}, '0{{1,{spare}}}$', '')"
    shown = f"(CASE WHEN length({shown}) > {width} THEN '{'#' * width}' ELSE {shown} END)"
    return _sql(_signed(value.sql("duckdb"), shown, width, plain, currency.replace("L", "$"), before, after))


def _signed(value: str, shown: str, width: int, plain: str, currency: str, before: str, after: str) -> str:
    negative, shown = f"({value}) < 0", f"'{currency}' || {shown}" if currency else shown
    if after in ("S", "MI"):
        text = f"{shown} || CASE WHEN {negative} THEN '-' ELSE '{'+' if after == 'S' else ' '}' END"
    elif after == "PR":
        text = f"CASE WHEN {negative} THEN '<' || {shown} || '>' ELSE ' ' || {shown} || ' ' END"
    else:
        text = f"CASE WHEN {negative} THEN '-' ELSE '{'+' if before == 'S' else ''}' END || {shown}"
    if plain:
        return f"trim({text}, ' ')"
    return f"lpad({text}, {width + len(currency) + (2 if after == 'PR' else 1)}, ' ')"


def to_number(value: exp.Expr, pattern: exp.Expr) -> exp.Expr:
    """TO_NUMBER: digits, a decimal point, thousands, S and MI."""
    found = re.fullmatch(
        r"[L$]?(?:S|MI)?([09,G]*)(?:[.D]([09]*))?(?:S|MI|)", _literal(pattern, "TO_NUMBER").replace(" ", "")
    )
    if found is None:
        raise not_implemented(f"the number format {pattern.this!r} of TO_NUMBER")
    digits, decimals = found[1].replace(",", "").replace("G", ""), found[2] or ""
    precision = len(digits) + len(decimals)
    if not 0 < precision <= 38:
        raise SqlError("22023", f"invalid format {pattern.this!r} of TO_NUMBER")
    plain = f"regexp_replace({value.sql('duckdb')}, '[, $]', '', 'g')"
    moved = f"regexp_replace({plain}, '^(.*?)([+-])$', '\\2\\1')"
    return _sql(f"CAST({moved} AS DECIMAL({precision}, {len(decimals)}))")
