"""Tests of the example. Their database, and the store in it, are made for them."""

from django.test import TestCase

from observatory_storage.django import unit_of_work
from observatory_storage.django.testing import StoreTestMixin


class AskTests(StoreTestMixin, TestCase):
    def test_an_answer_has_a_trace_of_three_spans(self):
        answer = self.client.get("/ask", {"question": "What is a metric?"}).json()
        self.assertEqual(answer["answer"], "A metric has data points.")
        with unit_of_work() as uow:
            tree = uow.traces.get_tree(answer["trace_id"])
        self.assertEqual(
            [(node.depth, node.span.name) for node in tree.nodes],
            [(0, "GET /ask"), (1, "search sentences"), (1, "chat sentences")],
        )

    def test_each_test_has_an_empty_store(self):
        with unit_of_work() as uow:
            self.assertEqual(len(uow.traces.list()), 0)
        self.client.get("/ask")
        with unit_of_work() as uow:
            self.assertEqual(len(uow.traces.list()), 1)


class OtherTests(StoreTestMixin, TestCase):
    def test_a_question_without_an_answer(self):
        self.assertEqual(self.client.get("/ask?question=Why%3F").json()["answer"], "I do not know.")
        with unit_of_work() as uow:
            self.assertEqual(len(uow.traces.list()), 1)
