"""A run's results on the terminal: tables with intervals, findings, and the conclusion last."""

from tests.reporting.samples import sample_metrics

from taiji.reporting.terminal_summary import print_summary


def test_the_terminal_table_shows_figures_with_intervals(capsys):
    print_summary(sample_metrics())
    text = " ".join(capsys.readouterr().out.split())
    for expected in (
        "0.331",
        "0.278–0.384",
        "· popularity",
        "history_mean",
        "interval includes zero",
        "83 of 144 rationales kept (48 more set the threshold); the threshold is perplexity 4.62",
        "against the best baseline, own category,",
        "total 744",
        "Rankers, all users, with 95% intervals; compared with none, green is better and red is worse",
    ):
        assert expected in text
    assert "…" not in text


def test_an_empty_run_prints_without_an_error(capsys):
    print_summary({**sample_metrics(0), "llm": [], "ranking": [], "seconds": {}})
    assert "demo" in capsys.readouterr().out


def test_the_conclusion_comes_last(capsys):
    print_summary(sample_metrics())
    lines = capsys.readouterr().out.split("asked: ")[1]
    assert lines.startswith("Do the answers of a language model improve a ranker") and "advice: " in lines
