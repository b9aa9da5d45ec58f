"""rotator.toml(5): the manual page of the configuration."""

from rotator.config import roff
from rotator.config.tables import Setting, tables


def manual_page(introduction: str, example: str) -> str:
    """Return the page; the introduction is Markdown."""
    settings = (
        part
        for title, about, settings in tables()
        for part in (roff.subheading(title), roff.paragraphs(about), *map(_item, settings))
    )
    return roff.page(
        "rotator.toml",
        5,
        "configuration of the token rotation daemon",
        roff.heading("SYNOPSIS"),
        roff.paragraphs("`/etc/rotator/rotator.toml`\n\n`/etc/rotator/conf.d/*.toml`"),
        roff.heading("DESCRIPTION"),
        roff.paragraphs(introduction),
        roff.heading("SETTINGS"),
        *settings,
        roff.heading("EXAMPLE"),
        roff.verbatim(example),
        roff.heading("SEE ALSO"),
        roff.paragraphs("`rotator`(1), `systemd.exec`(5)"),
    )


def _item(setting: Setting) -> str:
    default = "required" if setting.needed else f"default {setting.default}" if setting.default else ""
    return roff.item(f"`{setting.key}` ({'; '.join(filter(None, (setting.kind, default)))})", setting.meaning)
