"""The page of `tgc serve`, in a real Chromium and with the real application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="starlette is not installed (extra serve)")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra browser)")

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from tests.inference.answering import answering
from tests.serving.browsing import (
    CHROMIUM,
    KEY,
    Serving,
    answer_with,
    answers,
    ask,
    attentive,
    counting,
    error_of,
    kept,
    questions,
    served,
    stream_of,
)
from tinygrad_chat.formatting import printable

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"), pytest.mark.profile("ci")]

expect.set_options(timeout=60_000)  # against hangs only, as the machine may be busy
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
HOSTILE = (
    "<img src=x onerror=window.hacked=1><script>window.hacked=1</script></script><b>b</b> "
    "[a](javascript:window.hacked=1) ![i](http://192.0.2.1/x) \u202edlrow\u202c &lt;i&gt; \x1b[31m \x00 \ufffc"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with served(counting()) as found:
        yield found


@pytest.fixture
def page(browser: Browser, serving: Serving) -> Iterator[Page]:
    """The page as one finds it. Nothing may go wrong in it that it does not expect."""
    serving.pause = 0
    context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    context.set_default_timeout(60_000)
    found, wrong = context.new_page(), []

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    found.on("console", listen)
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.goto(serving.address)
    yield found
    context.close()
    assert wrong == []


# --- a conversation


def test_an_answer_comes_as_it_is_written_and_is_there_after_a_reload(page: Page, serving: Serving):
    serving.pause = 0.03
    ask(page, "Say the alphabet.")
    growing = page.locator(".answer[aria-busy=true] .said")
    expect(growing).to_contain_text("abc")
    assert len(growing.inner_text()) < len(ALPHABET)
    expect(page.locator("#send")).to_have_text("Stop")
    assert answers(page) == [ALPHABET]
    expect(page.locator("#send")).to_have_text("Send")
    expect(page.locator("#room")).to_have_text("48 of 128 tokens")
    page.reload()
    assert (questions(page), answers(page)) == (["Say the alphabet."], [ALPHABET])


@pytest.mark.parametrize("way", ["Escape", "button"])
def test_stop_keeps_what_there_is_and_frees_the_server(page: Page, serving: Serving, way: str):
    serving.pause = 0.1
    ask(page, "Say the alphabet.")
    expect(page.locator(".answer .said")).to_contain_text("ab")
    page.keyboard.press("Escape") if way == "Escape" else page.locator("#send").click()
    (said,) = answers(page)
    assert ALPHABET.startswith(said)
    assert said != ALPHABET
    expect(page.locator(".answer .hint")).to_have_text("Stopped.")
    assert kept(page)[0][-1] == {"role": "assistant", "content": said}
    page.wait_for_function("async () => (await (await fetch('metrics')).text()).match(/^tgc_answers_open 0$/m)")


def test_retry_asks_the_same_anew_with_other_random_numbers(page: Page):
    asked = answer_with(page, stream_of("one"))
    page.evaluate("localStorage.setItem('tgc.settings', '{\"seed\": \"5\"}')")
    page.reload()
    ask(page, "Who?")
    answers(page)
    page.get_by_role("button", name="Retry").click()
    assert answers(page) == ["one"]
    assert [each["messages"] for each in asked] == [[{"role": "user", "content": "Who?"}]] * 2
    assert [each["seed"] for each in asked] == [5, 6]


def test_an_edited_message_is_asked_in_place_of_itself_and_of_what_followed(page: Page):
    asked = answer_with(page, stream_of("yes"))
    for text in ("first", "second"):
        ask(page, text)
        answers(page)
    page.locator(".question").first.hover()
    page.get_by_role("button", name="Edit").first.click()
    page.keyboard.press("Escape")
    assert questions(page) == ["first", "second"]
    page.get_by_role("button", name="Edit").first.click()
    page.keyboard.type(", changed")
    page.keyboard.press("Enter")
    assert (answers(page), questions(page)) == (["yes"], ["first, changed"])
    assert asked[-1]["messages"] == [{"role": "user", "content": "first, changed"}]


def test_what_is_set_is_what_is_asked_for(page: Page):
    asked = answer_with(page, stream_of("yes"))
    page.locator("[data-opens=settings]").click()
    page.get_by_label("System prompt").fill("Be brief.")
    for name, value in (("Temperature", "0.5"), ("Top-p", "0.9"), ("Maximum tokens", "64"), ("Seed", "7")):
        page.get_by_label(name, exact=True).fill(value)
    ask(page, "Who?")
    answers(page)
    page.reload()
    ask(page, "And?")
    answers(page)
    options = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64, "seed": 7, "model": "tiny", "stream": True}
    assert asked[1].items() >= options.items()
    assert [each["role"] for each in asked[1]["messages"]] == ["system", "user", "assistant", "user"]


def test_a_call_of_the_calculator_stands_where_it_was_made_and_goes_back_to_the_model(page: Page):
    call, result = {"type": "python", "text": "2+3"}, {"type": "python_output", "text": "5"}
    asked = answer_with(page, stream_of("It is ", call, result, "**5**."))
    ask(page, "What is 2+3?")
    answers(page)
    expect(page.locator(".answer .calculation")).to_have_text("calculator: 2+3 = 5")
    expect(page.locator(".answer p")).to_have_text("It is calculator: 2+3 = 55.")
    expect(page.locator(".answer strong")).to_have_text("5")
    ask(page, "And?")
    answers(page)
    parts = [{"type": "text", "text": "It is "}, call, result, {"type": "text", "text": "**5**."}]
    assert asked[1]["messages"][1] == {"role": "assistant", "content": parts}


# --- chats that are kept


def test_several_chats_are_kept_opened_deleted_and_brought_back(page: Page):
    answer_with(page, stream_of("yes"))
    ask(page, "first")
    answers(page)
    page.locator("#new-chat").click()
    ask(page, "second")
    answers(page)
    titles = page.locator("#chat-list .title")
    expect(titles).to_have_text(["second", "first"])
    titles.nth(1).click()
    assert questions(page) == ["first"]
    page.get_by_role("button", name="Delete first").click()
    expect(titles).to_have_text(["second"])
    expect(page.locator(".welcome")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    assert questions(page) == ["first"]
    assert len(kept(page)) == 2


def test_chats_are_exported_as_the_lines_that_are_trained_on_and_imported(page: Page, tmp_path: Path):
    answer_with(page, stream_of("yes"))
    ask(page, "first")
    answers(page)
    with page.expect_download() as download:
        page.locator("#export").click()
    file = tmp_path / "chats.jsonl"
    download.value.save_as(file)
    messages = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "yes"}]
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"messages": messages}]
    file.write_text(file.read_text() * 2)
    page.locator("#import-file").set_input_files(file)
    expect(page.locator("#toast")).to_contain_text("Imported 2 chats.")
    assert kept(page) == [messages] * 3
    file.write_text('{"messages": []}\n{"messages": [{"role": "user", "content": 3}]}\n')
    page.locator("#import-file").set_input_files(file)
    expect(page.locator("#toast")).to_contain_text('chats.jsonl: Line 2: expected {"messages": [...]}.')
    assert len(kept(page)) == 3


def test_no_more_chats_are_kept_than_there_is_room_for_which_is_said(page: Page):
    answer_with(page, stream_of("yes"))
    page.evaluate("""() => { for (let at = 0; at < 100; at += 1)
        localStorage.setItem(`tgc.chat.${at}`, JSON.stringify({id: `${at}`, changed: at, messages: []}));
        localStorage.setItem('tgc.chat.x', '{"id":'); localStorage.setItem('tgc.chat.y', '{"messages": 3}'); }""")
    page.reload()
    page.locator("#new-chat").click()
    ask(page, "one more")
    assert answers(page) == ["yes"]
    expect(page.locator("#toast")).to_contain_text("not saved: there are 100 already")
    assert len(kept(page)) == 100


# --- texts of strangers


def test_no_text_becomes_markup_wherever_it_stands(page: Page):
    answer_with(
        page, stream_of(HOSTILE, {"type": "python", "text": HOSTILE}, {"type": "python_output", "text": HOSTILE})
    )
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": HOSTILE, "chats": True}]}))
    token = {"text": HOSTILE, "logprob": -1.0, "alternatives": [{"text": HOSTILE, "logprob": -1.0}]}
    looked = {"tokens": [token] * 2, "index": 0, "attention": [[[1.0]]]}
    page.route("**/v1/look", lambda route: route.fulfill(json=looked))
    page.reload()
    ask(page, HOSTILE)
    (said,) = answers(page)
    page.locator("[data-opens=look]").click()
    page.locator(".token").first.click()
    expect(page.locator("#attention")).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, body script, a:not(.skip), iframe").count() == 0
    assert questions(page)[0] == printable(HOSTILE)
    assert said.startswith(printable(HOSTILE).replace("\ufffc", "\ufffd"))
    assert not set("\u202e\u202c\x1b\x00") & set(page.locator("body").inner_text() + page.title())


def test_what_cannot_be_seen_is_escaped_as_in_python(page: Page):
    codes = [*range(0x800), *range(0x2000, 0x2100), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10010), 0x1F600]
    escaped = """async (codes) => { const { visible } = await import('/static/chat/dom.js');
        return codes.filter((code) => visible(String.fromCodePoint(code)) !== String.fromCodePoint(code)); }"""
    assert page.evaluate(escaped, codes) == [code for code in codes if printable(chr(code)) != chr(code)]
    assert page.evaluate("async () => (await import('/static/chat/dom.js')).visible('\\x1b\\u202e')") == "\\x1b\\u202e"


MARKDOWN = {
    "a **b** *c* `d *e*`": "<p>a <strong>b</strong> <em>c</em> <code>d *e*</code></p>",
    "2*3*4 and 5 * 6 * 7, **open, `open": "<p>2*3*4 and 5 * 6 * 7, **open, `open</p>",
    "**a *b* c**": "<p><strong>a <em>b</em> c</strong></p>",
    "# Title\none\ntwo\n\nthree": '<p class="heading">Title</p><p>one\ntwo</p><p>three</p>',
    "- a\n- `b`\n3. c": '<ul><li>a</li><li><code>b</code></li></ul><ol start="3"><li>c</li></ol>',
    "```python\n<b>\n\n*x*\n```\nz": '<pre tabindex="0"><code>&lt;b&gt;\n\n*x*</code></pre><p>z</p>',
    "```\nopen": '<pre tabindex="0"><code>open</code></pre>',
    "": "",
}


def test_light_markdown_is_nodes_and_long_texts_of_marks_take_no_time(page: Page):
    rendered = """async (texts) => { const { markdown } = await import('/static/chat/markdown.js');
        return texts.map((text) => markdown([{ type: 'text', text }]).map((node) => node.outerHTML).join('')); }"""
    assert page.evaluate(rendered, list(MARKDOWN)) == list(MARKDOWN.values())
    marks = [each * 20_000 for each in ("*", "**", "`", "** *", "*a ", "`a", "- *", "_", "#", "1. \n", "```\n")]
    assert len(page.evaluate(rendered, marks)) == len(marks)


def test_the_policy_lets_no_other_script_or_style_run(page: Page, serving: Serving):
    response = page.request.get(serving.address)
    policy = dict(each.split(" ", 1) for each in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    for name in ("chat/../renderer.py", "renderer.py", "chat/none.js", "..%2f__init__.py", "report.html", ""):
        assert page.request.get(f"{serving.address}static/{name}").status == 404


# --- how it looks


def test_light_and_dark_follow_the_system_and_the_switch(page: Page):
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(251, 251, 249)", "rgb(21, 23, 27)"
    assert page.evaluate(ground) == light
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == dark
    page.locator("[data-opens=settings]").click()
    page.get_by_text("Light", exact=True).click()
    assert page.evaluate(ground) == light
    page.emulate_media(color_scheme="light")
    page.get_by_text("Dark", exact=True).click()
    page.reload()
    assert page.evaluate(ground) == dark


def test_everything_fits_a_phone(page: Page):
    answer_with(page, stream_of("word " * 30 + "x" * 200 + "\n```\n" + "y" * 200 + "\n```"))
    page.set_viewport_size({"width": 360, "height": 640})

    def fits() -> bool:
        return page.evaluate("document.documentElement.scrollWidth <= innerWidth && scrollX === 0")

    expect(page.locator("#chats")).not_to_be_in_viewport()
    ask(page, "z" * 100)
    answers(page)
    assert fits()
    for name in ("chats", "look", "settings"):
        page.locator(f"[data-opens={name}]").click()
        expect(page.locator(f"#{name}")).to_be_in_viewport()
        assert fits()
        page.locator(f"[data-closes={name}]").click()
        expect(page.locator(f"#{name}")).not_to_be_in_viewport()


# --- by keyboard, and read aloud


def focused(page: Page) -> str:
    return page.evaluate(
        "() => { const it = document.activeElement; return it.ariaLabel || it.labels?.[0]?.innerText || it.innerText; }"
    )


def test_all_is_reached_by_the_keyboard_in_the_order_in_which_it_stands(page: Page):
    assert focused(page) == "Message"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    assert (answers(page), questions(page)) == ([ALPHABET], ["one\ntwo"])
    assert focused(page) == "Message"
    page.locator(".skip").focus()
    passed = [focused(page)]
    for _ in range(13):
        page.keyboard.press("Tab")
        passed.append(focused(page))
    chats = ["Skip to the message box", "New chat", "one two", "Delete one two", "Export", "Import"]
    talk = ["Look inside", "Settings", "Edit", "Retry", "Copy", "Look inside", "Message", "Send"]
    assert passed == [*chats, *talk]


def test_esc_closes_a_pane_and_returns_to_its_button(page: Page):
    page.locator("[data-opens=settings]").focus()
    page.keyboard.press("Enter")
    assert focused(page) == "Close"
    expect(page.locator("[data-opens=settings]")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(page.locator("#settings")).to_be_hidden()
    assert focused(page) == "Settings"
    expect(page.locator("[data-opens=settings]")).to_have_attribute("aria-expanded", "false")


def test_everything_that_one_can_act_on_has_a_name(page: Page):
    ask(page, "Who?")
    answers(page)
    for name in ("settings", "look"):
        page.locator(f"[data-opens={name}]").click()
        unnamed = """() => [...document.querySelectorAll('button, input, select, textarea, [role=button]')]
            .filter((each) => each.checkVisibility())
            .filter((each) => !each.ariaLabel && !each.labels?.length && !each.innerText.trim())
            .map((each) => each.outerHTML)"""
        assert page.evaluate(unnamed) == []
    expect(page.get_by_role("log")).to_have_attribute("aria-live", "polite")
    expect(page.get_by_role("article", name="The model")).to_have_attribute("aria-busy", "false")


# --- what goes wrong


def test_a_server_that_is_gone_is_told_and_asked_again(page: Page):
    page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    ask(page, "Who?")
    expect(page.get_by_role("alert")).to_contain_text("The server does not respond")
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Try again").click()
    assert answers(page) == [ALPHABET]
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_connection_that_breaks_leaves_what_had_come(page: Page):
    answer_with(page, stream_of("half an ").replace("data: [DONE]\n\n", ""))
    ask(page, "Who?")
    assert answers(page) == ["half an "]
    expect(page.get_by_role("alert")).to_contain_text("does not respond")


@pytest.mark.parametrize(
    ("status", "body", "told", "remedy"),
    [
        (429, error_of("too many"), "The server is busy. Try again in 3 s.", "Try again"),
        (400, error_of("expected a number"), "expected a number", "Try again"),
        (502, "<html>", "The request failed with status 502.", "Try again"),
        (200, stream_of(), "The model said nothing.", "Try again"),
        (200, f"data: {error_of('no memory')}\n\n", "no memory", "Try again"),
    ],
)
def test_a_refusal_is_told_in_its_words_where_the_answer_would_be(
    page: Page, status: int, body: str, told: str, remedy: str
):
    answer_with(page, body, status=status, headers={"Retry-After": "3"})
    ask(page, "Who?")
    expect(page.get_by_role("alert")).to_contain_text(told)
    expect(page.get_by_role("alert").get_by_role("button")).to_have_text(remedy)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("This has no answer yet.")


def test_a_conversation_that_is_too_long_is_gone_on_with_in_a_new_chat(page: Page):
    ask(page, "Say the alphabet, and then say all of it again.")
    answers(page)
    ask(page, "Say it once more, please, as fast as you can, or faster.")
    expect(page.get_by_role("alert")).to_contain_text("the model's context is 128 tokens")
    page.get_by_role("button", name="Ask in a new chat").click()
    assert (questions(page), answers(page)) == (
        ["Say it once more, please, as fast as you can, or faster."],
        [ALPHABET],
    )


def test_a_server_with_a_key_is_given_it_once_for_the_tab(browser: Browser):
    with served(counting(3), api_key=KEY) as serving, browser.new_page() as page:
        page.goto(serving.address)
        for key in ("another", KEY):
            page.get_by_label("API key").fill(key)
            page.keyboard.press("Enter")
        expect(page.locator("#model")).to_have_text("tiny")
        ask(page, "Who?")
        assert answers(page) == ["abc"]
        assert page.evaluate("JSON.stringify(localStorage)").count(KEY) == 0
        page.reload()
        expect(page.locator("#model")).to_have_text("tiny")


def test_who_asks_before_the_model_is_known_asks_that_model(page: Page):
    asked, held = answer_with(page, stream_of("yes")), []
    page.route("**/v1/models", lambda route: held.append(route))
    page.reload()
    ask(page, "Who?")
    expect(page.locator(".answer[aria-busy=true]")).to_be_visible()
    assert asked == []
    held[0].fulfill(json={"data": [{"id": "late", "chats": True}]})
    assert answers(page) == ["yes"]
    assert asked[0]["model"] == "late"


def test_a_model_that_cannot_chat_goes_on_from_a_text(page: Page):
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": "tiny", "chats": False}]}))
    answer_with(page, error_of("was never taught to chat"), status=400)
    page.reload()
    expect(page.locator(".welcome h2")).to_have_text("Begin a text")
    page.locator("[data-opens=settings]").click()
    page.locator("#max_tokens").fill("16")  # so that the look fits the context: half characters are three bytes there
    page.locator("[data-opens=settings]").click()
    ask(page, "vwx")
    assert answers(page)[0].startswith("yz")
    page.locator("[data-opens=settings]").click()
    page.get_by_text("Chats", exact=True).last.click()
    ask(page, "wxy")
    page.get_by_role("button", name="Continue this text").click()
    assert answers(page)[-1].startswith("z")
    page.locator(".answer").get_by_role("button", name="Look inside").last.click()
    expect(page.locator(".token").nth(1)).to_have_text("w")
    page.locator(".token").nth(1).click()  # a bigram has no attention to show
    expect(page.locator("#attention")).to_be_hidden()


# --- the look inside


def test_the_look_inside_shows_probabilities_alternatives_and_attention(browser: Browser):
    with served(attentive()) as serving, browser.new_page() as page:
        messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}]
        page.goto(serving.address)
        page.evaluate(
            "(messages) => import('/static/chat/store.js').then((it) => it.saveChat(it.newChat(messages)))", messages
        )
        page.reload()
        page.get_by_role("button", name="Look inside").last.click()
        tokens = page.locator(".token")
        expect(tokens).to_have_text(
            [
                "<|bos|>",
                "<|user_start|>",
                "a",
                "b",
                "<|user_end|>",
                "<|assistant_start|>",
                "c",
                "d",
                "<|assistant_end|>",
            ]
        )
        tokens.nth(6).hover()
        expect(page.locator("#detail h3 code")).to_have_text("c")
        assert page.locator(".alternatives li").count() >= 5
        assert page.locator(".alternatives [aria-current]").count() == 1
        tokens.nth(6).click()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        expect(tokens.nth(7)).to_have_attribute("aria-pressed", "true")
        note = page.locator("#attention-note")
        expect(note).to_contain_text("d attends most to")
        expect(page.locator("#layer option")).to_have_text(["mean of all", "1", "2"])
        before = note.inner_text()
        page.locator("#layer").select_option("2")
        page.locator("#head").select_option("1")
        assert note.inner_text() != before
        page.keyboard.press("Escape")
        expect(page.locator("#look")).to_be_hidden()


def test_the_look_inside_says_how_fast_an_answer_came(page: Page):
    page.locator("[data-opens=look]").click()
    ask(page, "Who?")
    answers(page)
    expect(page.locator("#speed dt")).to_have_text(["tokens", "per second", "to the first token", "seed"])
    expect(page.locator("#speed dd").first).to_have_text("27")
    expect(page.locator(".token")).to_have_count(35)


def test_an_answer_whose_bytes_are_no_text_is_looked_into_token_by_token(browser: Browser):
    with served(answering("a", 0xC3, "b", 0xFF)) as serving, browser.new_page() as page:
        page.goto(serving.address)
        ask(page, "Who?")
        assert answers(page) == ["a\ufffdb\ufffd"]
        page.locator("[data-opens=look]").click()
        tokens = page.locator(".token").all_inner_texts
        expect(page.locator(".token")).to_have_count(13)
        assert tokens()[-5:] == ["a", "bytes:\\xc3", "b", "bytes:\\xff", "<|assistant_end|>"]
