"""Mails as they are written: templates, links, the QR code, what goes over the wire. Nothing is sent."""

from __future__ import annotations

import base64
import io
import re
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
import segno
import structlog
from PIL import Image
from typer.testing import CliRunner

from aim.cli.main import app
from aim.config import MailerConfig
from aim.errors import ConfigError
from aim.notify.links import APPS, deeplink, login_hint, qr_code
from aim.notify.mailer import Composer, Mailer, check_templates, sample_facts
from aim.notify.message import message_id, message_of, usable
from aim.notify.settings import MailSettings, SmtpSettings, settings_of
from aim.notify.templates import FILES, shipped
from aim.ports import Announcement, Letter, MailEvent
from tests.unit.letters import Letters

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MIA = "https://mobile.element.io/element-pro/?account_provider=example.com&login_hint=mxid:@mia:example.com"


def settings(**more: object) -> MailSettings:
    given: dict[str, object] = {
        "sender": "Example IT <it@example.com>",
        "server_name": "example.com",
        "admins": ("root@example.com", "ops@example.com"),
        "smtp": SmtpSettings(host="127.0.0.1", password="secret"),
    }
    return MailSettings(**(given | more))  # type: ignore[arg-type]  # each test knows what it gives


def about(event: MailEvent = MailEvent.REGISTERED, **more: object) -> Announcement:
    given: dict[str, object] = {
        "event": event,
        "key": f"{event}:mia",
        "localpart": "mia",
        "display_name": "Mia Stone",
        "emails": ("mia@example.com",),
        "facts": sample_facts(event, NOW, timedelta(days=30)),
    }
    return Announcement(**(given | more))  # type: ignore[arg-type]  # each test knows what it gives


def compose(announcement: Announcement, **more: object) -> Letter:
    return Composer(settings(**more)).compose(announcement)


def wire(letter: Letter) -> EmailMessage:
    """The message as somebody's mail program reads it."""
    content = message_of(letter, "Example IT <it@example.com>", NOW).as_bytes()
    mail = message_from_bytes(content, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


# Links


@pytest.mark.parametrize(
    ("name", "link"),
    {
        "element-pro": MIA,
        "element-x": MIA.replace("element-pro", "element"),
        "element-classic": MIA.replace("element-pro/", ""),
    }.items(),
)
def test_the_link_opens_the_app_with_server_and_name(name: str, link: str) -> None:
    assert deeplink(APPS[name], "example.com", "mxid:@mia:example.com") == link


def test_what_means_something_in_a_url_is_encoded() -> None:
    link = deeplink(APPS["element-pro"], "example.com:8448", "a+b/c=d&e f%ü@example.com")
    assert link.endswith(
        "?account_provider=example.com:8448&login_hint=a%2Bb%2Fc%3Dd%26e%20f%25%C3%BC@example.com"
    )


def test_without_a_hint_the_link_names_the_server_only() -> None:
    assert deeplink(APPS["element-x"], "example.com", None).endswith("/element/?account_provider=example.com")


def test_the_hint_is_what_the_login_expects() -> None:
    emails = ["a@example.com", "b@example.com"]
    mxid = "@mia:example.com"
    assert login_hint("auto", mxid, emails) == login_hint("mxid", mxid, emails) == "mxid:@mia:example.com"
    assert login_hint("email", mxid, emails) == "a@example.com"
    assert login_hint("email", mxid, []) is None
    assert login_hint("none", mxid, emails) is None


def modules_of(png: bytes) -> list[list[bool]]:
    """The dark modules of a QR code's picture, without its border."""
    picture = Image.open(io.BytesIO(png)).convert("L")
    scale = picture.width // int(segno.make_qr(MIA, error="m").symbol_size()[0])
    cells = range(4 * scale + scale // 2, picture.width - 4 * scale, scale)
    return [[picture.getpixel((x, y)) == 0 for x in cells] for y in cells]


def test_the_code_says_the_link() -> None:
    png = base64.b64decode(qr_code(MIA).removeprefix("data:image/png;base64,"))
    expected = [[bool(module) for module in row] for row in segno.make_qr(MIA, error="m").matrix]
    assert modules_of(png) == expected
    other = [[bool(module) for module in row] for row in segno.make_qr(MIA[:-1], error="m").matrix]
    assert modules_of(png) != other


# Templates


@pytest.mark.parametrize("event", MailEvent)
def test_every_mail_that_comes_with_us_can_be_written(event: MailEvent) -> None:
    letter = compose(about(event), web_url="https://chat.example.com")
    assert letter.subject
    assert "\n" not in letter.subject
    assert letter.text.strip()
    assert "</html>" in letter.html
    assert not re.search(r"\{[{%]|None", letter.subject + letter.text + letter.html)


@pytest.mark.parametrize("event", MailEvent)
def test_every_event_has_its_three_files(event: MailEvent) -> None:
    assert {path.name for path in (shipped() / event).iterdir()} == set(FILES)


def test_our_templates_pass_the_check() -> None:
    assert check_templates(settings()) == ()


def test_the_welcome_has_the_apps_the_link_and_the_code() -> None:
    letter = compose(about(), web_url="https://chat.example.com")
    for text in (APPS["element-pro"].ios, APPS["element-pro"].android, "https://chat.example.com"):
        assert text in letter.text
        assert text in letter.html
    assert MIA in letter.text
    assert f'href="{MIA.replace("&", "&amp;")}"' in letter.html
    assert f'src="{qr_code(MIA)}"' in letter.html
    assert 'alt="QR code of https://mobile.element.io/' in letter.html
    assert "@mia:example.com" in letter.text


def test_who_left_is_told_until_when_they_may_come_back() -> None:
    letter = compose(about(MailEvent.DEACTIVATED))
    assert "2026-12-24 12:00 UTC" in letter.text
    assert "2026-12-24 12:00 UTC" in letter.html
    assert "UTC" not in compose(about(MailEvent.DEACTIVATED, facts={})).text


def test_admins_are_told_what_is_held_and_how_to_approve_it() -> None:
    facts = {"held": ["12 kicks in <company>", "4 demotions"], "digest": "sha256:abc"}
    letter = compose(Announcement(event=MailEvent.HELD, key="held", facts=facts))
    assert letter.recipients == ("root@example.com", "ops@example.com")
    assert "- 12 kicks in <company>\n- 4 demotions\n" in letter.text
    assert "12 kicks in &lt;company&gt;" in letter.html
    assert "aim approve sha256:abc" in letter.text
    assert letter.localpart is None


def test_names_are_text_and_no_markup() -> None:
    letter = compose(about(display_name='<b onclick="x">Mia</b> & Co'))
    assert "<b onclick" not in letter.html
    assert "&lt;b onclick=&#34;x&#34;&gt;Mia&lt;/b&gt; &amp; Co" in letter.html
    assert 'Hello <b onclick="x">Mia</b> & Co,' in letter.text


def test_a_name_is_not_a_template() -> None:
    assert "Hello {{ 7 * 7 }}," in compose(about(display_name="{{ 7 * 7 }}")).text


def test_who_has_no_name_is_called_by_their_localpart() -> None:
    assert "Hello mia," in compose(about(display_name=None)).text


def own(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_a_file_of_ones_own_goes_before_ours_the_rest_stays(tmp_path: Path) -> None:
    path = own(tmp_path, {"registered/subject.txt": "Grüß Gott, {{ display_name }}!\n"})
    assert check_templates(settings(templates_path=path)) == ()
    letter = compose(about(), templates_path=path)
    assert letter.subject == "Grüß Gott, Mia Stone!"
    assert letter.text == compose(about()).text


def test_a_layout_of_ones_own_frames_our_mails(tmp_path: Path) -> None:
    path = own(tmp_path, {"layout.html": "<body>OURS {% block content %}{% endblock %}</body>"})
    html = compose(about(MailEvent.ACTIVATED), templates_path=path).html
    assert html.startswith("<body>OURS")
    assert "is active again" in html


BROKEN = {
    "syntax": ("Hello\n{% if %}\n", r"registered/text\.txt:2: Expected an expression"),
    "unknown variable": ("one\ntwo\n{{ nme }}\n", r"registered/text\.txt:3: 'nme' is undefined"),
    "unknown filter": ("one\n{{ mxid | frobnicate }}\n", r"registered/text\.txt:2: No filter named"),
    "missing include": ("{% include 'gone.txt' %}\n", r"registered/text\.txt:1: .*gone\.txt"),
    "not allowed": ("\n{{ mxid.__class__.__mro__ }}\n", r"registered/text\.txt:2: .*unsafe"),
    "wrong type": ("{{ emails + 1 }}\n", r"registered/text\.txt:1: can't be rendered \(TypeError\)"),
    "no date": ("{{ due_at | day }}\n", r"registered/text\.txt:?1?: can't be rendered \(AttributeError\)"),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_template_is_an_error_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    path = own(tmp_path, {"registered/text.txt": text})
    with pytest.raises(ConfigError, match=said) as caught:
        check_templates(settings(templates_path=path))
    assert "\n" not in caught.value.message
    assert "docs/mail.md" in caught.value.remedy


def test_an_empty_subject_is_an_error(tmp_path: Path) -> None:
    path = own(tmp_path, {"held/subject.txt": "{% if digest == '' %}x{% endif %}\n"})
    with pytest.raises(ConfigError, match=r"held/subject\.txt: the subject is empty"):
        check_templates(settings(templates_path=path))


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    path = own(tmp_path, {"held/text.txt": ""})
    (path / "held" / "text.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"held/text\.txt: can't be rendered \(UnicodeDecodeError\)"):
        check_templates(settings(templates_path=path))


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mailer\.templates_path .*gone is no folder"):
        check_templates(settings(templates_path=tmp_path / "gone"))


def test_templates_of_another_product_are_named(tmp_path: Path) -> None:
    path = own(tmp_path, {"registered/text.pug": "p Hello"})
    (warning,) = check_templates(settings(templates_path=path))
    assert "registered/text.pug is not used" in warning


def test_a_template_that_fails_on_one_person_is_stood_in_for(tmp_path: Path) -> None:
    text = "{% if localpart == 'mia' %}{{ 1 / 0 }}{% endif %}Custom\n"
    path = own(tmp_path, {"registered/text.txt": text})
    assert check_templates(settings(templates_path=path)) == ()
    with structlog.testing.capture_logs() as logs:
        assert compose(about(), templates_path=path).text == compose(about()).text
    assert [line["log_level"] for line in logs] == ["error"]
    assert "Mia" not in str(logs)


# What goes over the wire


def test_a_subject_stays_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    path = own(tmp_path, {"registered/subject.txt": "Hello {{ display_name }}\n\nBcc: a@example.com\n"})
    letter = compose(
        about(display_name="Mia\r\nBcc: x@example.com\u2028X-Evil: 1\x00\x85"), templates_path=path
    )
    mail = wire(letter)
    assert mail["Subject"] == "Hello Mia Bcc: x@example.com X-Evil: 1 Bcc: a@example.com"
    assert mail["Bcc"] is None
    assert mail["X-Evil"] is None
    assert "Hello Mia Bcc: x@example.com X-Evil: 1,\n" in letter.text


def test_names_in_all_scripts_arrive(tmp_path: Path) -> None:
    name = "Zoë Łukasiewicz 李小龍 🦊"
    path = own(tmp_path, {"registered/subject.txt": "Hello {{ display_name }}"})
    letter = compose(about(display_name=name), templates_path=path)
    content = message_of(letter, "Büro <it@example.com>", NOW).as_bytes()
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) < 998
    mail = message_from_bytes(content, policy=policy.default)
    assert mail["Subject"] == f"Hello {name}"
    assert mail["From"] == "Büro <it@example.com>"
    for kind in ("plain", "html"):
        body = mail.get_body((kind,))
        assert body is not None
        assert name in body.get_content()


def test_the_code_is_a_part_of_the_mail() -> None:
    mail = wire(compose(about()))
    assert [part.get_content_type() for part in mail.walk()] == [
        *("multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png")
    ]
    body = mail.get_body(("html",))
    assert body is not None
    assert "data:" not in body.get_content()
    (content_id,) = re.findall(r'src="cid:([^"]+)"', body.get_content())
    (picture,) = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert picture["Content-ID"] == f"<{content_id}>"
    assert picture.get_content_disposition() == "inline"
    assert picture.get_payload(decode=True) == base64.b64decode(qr_code(MIA).partition(",")[2])


def test_headers_say_who_when_and_that_nobody_is_to_answer() -> None:
    letter = compose(about(emails=("mia@example.com", "stone@example.com")))
    mail = wire(letter)
    assert mail["To"] == "mia@example.com, stone@example.com"
    assert mail["Date"].datetime == NOW
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == letter.message_id == compose(about()).message_id
    assert letter.message_id != compose(about(key="other")).message_id
    assert "mia" not in message_id("registered:mia", "it@example.com")


@pytest.mark.parametrize(
    ("address", "found"),
    {
        "mia@example.com": "mia@example.com",
        "mia@bücher.example": "mia@xn--bcher-kva.example",
        "jürgen@example.com": "jürgen@example.com",
        "a@example.com\r\nRCPT TO:<b@example.com>": None,
        "a@example.com, b@example.com": None,
        "Mia <mia@example.com>": None,
        "mia": None,
        "mia@": None,
        "mia@a..b": None,
        f"{'m' * 250}@example.com": None,
        "": None,
    }.items(),
)
def test_only_addresses_are_written_to(address: str, found: str | None) -> None:
    assert usable(address) == found


# The announcer


async def test_an_announcement_is_queued_once_and_wakes_the_postman() -> None:
    letters, posted = Letters(), []
    mailer = Mailer(settings(), letters, lambda: NOW, lambda: posted.append(1))
    await mailer.announce(about(emails=("mia@example.com", "MIA@example.com", "no address")))
    await mailer.announce(about())
    assert len(letters.rows) == 1
    assert letters.rows[1].queued.letter.recipients == ("MIA@example.com",)
    assert posted


@pytest.mark.parametrize("announcement", [about(emails=()), about(MailEvent.HELD)], ids=["person", "admins"])
async def test_without_anybody_to_write_to_nothing_is_queued(announcement: Announcement) -> None:
    letters, posted = Letters(), []
    await Mailer(settings(admins=()), letters, lambda: NOW, lambda: posted.append(1)).announce(announcement)
    assert not letters.rows
    assert not posted


# Settings


def test_settings_come_from_the_configuration(tmp_path: Path) -> None:
    config = MailerConfig.model_validate(
        {
            "from": "Example IT <it@example.com>",
            "admins": "root@example.com",
            "app": "element-x",
            "login_hint": "email",
            "transport": {
                "host": "smtp.example.com",
                "secure": "false",
                "start_tls": "true",
                "port": "587",
                "timeout": "5s",
                "auth": {"user": "aim", "pass": "secret"},
            },
        }
    )
    found = settings_of(config, "example.com")
    assert found.sender_address == "it@example.com"
    assert found.admins == ("root@example.com",)
    assert (found.app, found.login_hint) == ("element-x", "email")
    assert found.smtp == SmtpSettings(
        host="smtp.example.com",
        port=587,
        secure=False,
        start_tls=True,
        user="aim",
        password="secret",
        timeout=5,
    )
    assert "secret" not in repr(found)


def test_the_default_is_tls_on_port_465() -> None:
    found = settings_of(
        MailerConfig.model_validate({"from": "it@example.com", "transport": {"host": "smtp.example.com"}}),
        "example.com",
    )
    assert (found.smtp.port, found.smtp.secure, found.smtp.user) == (465, True, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"from": "IT department"},
        {"from": "a@example.com, b@example.com"},
        {"from": "bü@example.com"},
        {"admins": ["root"]},
        {"app": "other"},
        {"transport": {"host": "smtp.example.com", "start_tls": "true"}},
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused(wrong: Mapping[str, object]) -> None:
    good = {"from": "it@example.com", "transport": {"host": "smtp.example.com"}}
    MailerConfig.model_validate(good)
    with pytest.raises(ValueError, match=r"must be|goes with"):
        MailerConfig.model_validate({**good, **wrong})


# aim mail preview

CONFIG = """\
homeserver: {url: 'http://127.0.0.1:1', server_name: example.com}
appservice: {as_token: one, hs_token: two}
source: {type: ldif, path: people.ldif}
"""
MAILER = "mailer: {from: it@example.com, transport: {host: smtp.example.com}}\n"
PEOPLE = """\
dn: dc=example,dc=com
objectClass: domain
dc: example

dn: uid=mia,dc=example,dc=com
objectClass: inetOrgPerson
uid: mia
cn: Mia Stone
mail: mia@example.com
entryUUID: 5f1c3f9e-0000-4000-8000-000000000001

"""


def preview(folder: Path, *words: str, mailer: str = MAILER) -> object:
    (folder / "config.yaml").write_text(CONFIG + mailer, encoding="utf-8")
    (folder / "people.ldif").write_text(PEOPLE, encoding="utf-8")
    found = CliRunner().invoke(app, ["mail", "preview", *words, "-c", str(folder / "config.yaml")])
    return found.exception or found.output


@pytest.mark.parametrize("event", MailEvent)
def test_a_preview_writes_the_mail_for_its_owner_alone(tmp_path: Path, event: MailEvent) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{event}.html").write_text("old and much longer " * 5000)
    (out / f"{event}.html").chmod(0o644)
    printed = preview(tmp_path, event, "@mia:example.com", "--out", str(out))
    assert isinstance(printed, str)
    for ending in ("eml", "html", "txt"):
        path = out / f"{event}.{ending}"
        assert str(path) in printed
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "old and much longer" not in path.read_text(encoding="utf-8")
    mail = message_from_bytes((out / f"{event}.eml").read_bytes(), policy=policy.default)
    assert mail["To"] == (None if event is MailEvent.HELD else "mia@example.com")


def test_a_preview_takes_a_localpart(tmp_path: Path) -> None:
    assert isinstance(preview(tmp_path, "registered", "mia", "--out", str(tmp_path)), str)
    assert "mia@example.com" in (tmp_path / "registered.eml").read_text()


@pytest.mark.parametrize(
    ("words", "mailer", "said"),
    [
        (["registered", "@mia:example.com"], "", "no mailer is configured"),
        (["registered", "@bob:example.com"], MAILER, "@bob:example.com is nobody in the directory"),
        (["registered", "@mia:example.org"], MAILER, "@mia:example.org is of another homeserver"),
        (["deactivated", "bob"], MAILER, "bob is nobody in the directory, nor an account that is remembered"),
        (["gone", "@mia:example.com"], MAILER, "there is no mail for gone"),
        (["activated"], MAILER, "the mail for activated is about somebody"),
    ],
)
def test_a_preview_that_can_t_be_made_says_why(
    tmp_path: Path, words: list[str], mailer: str, said: str
) -> None:
    error = preview(tmp_path, *words, "--out", str(tmp_path), mailer=mailer)
    assert said in str(error)
    assert not list(tmp_path.glob("*.eml"))
