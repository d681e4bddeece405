"""The set-up chooses, reports and skips as it says. Nothing is installed here."""

import socket
import stat
import threading

import pytest

from helpers import install


def program(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_version_of_a_python_that_does_not_run(tmp_path):
    shim = program(tmp_path / "python3.13", "#!/bin/sh\necho no such version >&2\nexit 127\n")
    assert install.version(shim) is None
    assert install.version(str(tmp_path / "absent")) is None


def test_a_broken_python_is_passed_over(tmp_path, monkeypatch):
    program(tmp_path / "python3.13", "#!/bin/sh\nexit 127\n")
    program(tmp_path / "python3.12", "#!/bin/sh\necho 3 12 cpython\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    old = program(tmp_path / "old", "#!/bin/sh\necho 3 9 cpython\n")
    monkeypatch.setattr(install.sys, "_base_executable", old)
    assert install.find_python() == "python3.12"


def test_no_python_in_range_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(install.sys, "_base_executable", str(tmp_path / "absent"))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11, 3\.12 or 3\.13"):
        install.find_python()


def test_a_step_that_fails_shows_why(capsys):
    assert not install.step("Trying", "sh", "-c", "echo because; exit 3", seconds=1)
    assert "because" in capsys.readouterr().out
    assert not install.step("Trying", "/no/such/program")


def test_without_root_the_one_line_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(install.sys, "platform", "linux")
    monkeypatch.setattr(install, "become_root", lambda: None)
    monkeypatch.setattr(install, "works", lambda *command: True)
    monkeypatch.setattr(install, "has", lambda program: program == "apt-get")
    monkeypatch.setattr(install, "PACKAGES", {"one": lambda: False, "two": lambda: True})
    install.install_packages("python3")
    assert capsys.readouterr().out.splitlines()[1].split() == (
        "sudo apt-get install -q --yes --no-install-recommends one".split()
    )


def test_the_docker_socket_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "SOCKET", str(tmp_path / "s"))
    assert install.docker() == "none"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(install.SOCKET)
        server.listen()

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")

        thread = threading.Thread(target=answer)
        thread.start()
        assert install.docker() == "answers"
        thread.join()


def test_the_fingerprint_follows_the_requirements(tmp_path, monkeypatch):
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(install, "ROOT", tmp_path)
    before = install.fingerprint(install.sys.executable)
    assert install.fingerprint(install.sys.executable) == before
    (tmp_path / "requirements.txt").write_text("one more")
    assert install.fingerprint(install.sys.executable) != before


def test_the_book_has_an_environment_of_its_own(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(install, "BOOK", tmp_path / "book")
    monkeypatch.setattr(install, "install_environment", lambda *given: made.append(given))
    monkeypatch.setattr(install, "install_packages", lambda python: pytest.fail("not asked for"))
    monkeypatch.setattr(install.sys, "argv", ["install.py", "book"])
    install.main()
    assert [given[1:] for given in made] == [(tmp_path / "book", "-e", f"{install.ROOT}[book]")]
