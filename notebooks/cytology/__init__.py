"""The code that the notebooks share, one concept a file.

Imports point one way, downwards in this list:

========================================  =====================================================
``report``                                the HTML page of a run
``plots``                                 every figure: tables in, a Matplotlib figure out
``caveats``                               what a run must say aloud wherever its numbers show
``inference``                             a trained model on new images
``training``                              heads on frozen features, fine-tuning, saved models
``predictions`` ``evaluation``            the table of predictions; metrics and the baseline
``architectures`` ``weights``             the three networks and where their weights come from
``pipeline``                              decode once, feed ``tf.data``, frozen features
``splitting`` ``augmentation``            groups, folds, the leak check; exact orientations
``datasets`` ``quality`` ``sample``       sources of images; unreadable and doubled images
``tables``                                CSV and JSON files that pass between notebooks
``settings``                              parameters, paths, seeds, versions
========================================  =====================================================
"""

import os

# TensorFlow reads this when it is first imported: without it, its start-up chatter fills the
# first cell of every notebook. Errors are still shown.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
