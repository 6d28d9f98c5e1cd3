"""The best weights are kept and come back; training stops when patience is over."""

import math

import torch

from taiji.nn.early_stopping import BestWeights


def test_the_best_weights_come_back_and_patience_ends():
    network = torch.nn.Linear(1, 1)
    best = BestWeights(network, patience=2)
    stops = []
    for value in (-5.0, 3.0, math.nan, 3.0):
        torch.nn.init.constant_(network.weight, value)
        stops.append(best.stop(value))
    assert stops == [False, False, False, True], "an equal value and no number are no better"
    torch.nn.init.zeros_(network.weight)
    best.restore()
    assert network.weight.item() == 3.0


def test_without_a_check_nothing_is_put_back():
    network = torch.nn.Linear(1, 1)
    before = network.weight.item()
    best = BestWeights(network, patience=1)
    assert best.stop(math.nan)
    best.restore()
    assert network.weight.item() == before


def test_a_falling_loss_keeps_training_alive_but_not_its_weights():
    network = torch.nn.Linear(1, 1)
    best = BestWeights(network, patience=2)
    stops = []
    for value, loss in ((1.0, 9.0), (0.5, 8.0), (0.4, 7.0), (0.3, 7.0), (0.2, math.nan)):
        torch.nn.init.constant_(network.weight, value)
        stops.append(best.stop(value, loss))
    assert stops == [False, False, False, False, True]
    best.restore()
    assert network.weight.item() == 1.0
