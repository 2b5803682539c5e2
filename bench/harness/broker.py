"""The broker: one KRaft node from Maven's jars on the loopback address, and what the harness asks of it."""

import os
import shutil
import subprocess

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from . import processes

_START_TIMEOUT_S = 60
_REQUEST_TIMEOUT_S = 10

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.segment.delete.delay.ms=1000
"""


class Broker:
    """A broker process; use it as a context manager."""

    def __init__(self, jars, work, port):
        self.bootstrap = f"127.0.0.1:{port}"
        self._class_path = os.path.join(jars, "*")
        self._work = work
        self._port = port
        self._process = None
        self._partitions = {}
        self._readers = {}

    def __enter__(self):
        data = os.path.join(self._work, "broker-data")
        shutil.rmtree(data, ignore_errors=True)
        properties = os.path.join(self._work, "server.properties")
        with open(properties, "w", encoding="utf-8") as file:
            file.write(_PROPERTIES.format(port=self._port, controller_port=self._port + 1, data=data))
        tool = ["java", "-cp", self._class_path, "kafka.tools.StorageTool"]
        cluster_id = subprocess.run([*tool, "random-uuid"], check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run([*tool, "format", "-t", cluster_id, "-c", properties], check=True, capture_output=True)
        log_level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        command = ["java", "-Xmx1g", log_level, "-cp", self._class_path, "kafka.Kafka", properties]
        self._process = processes.start(command, os.path.join(self._work, "broker.log"))
        with open(os.path.join(self._work, "broker.pid"), "w", encoding="ascii") as file:
            file.write(str(self._process.pid))
        try:
            processes.wait_until(self._answers, _START_TIMEOUT_S, f"the broker (its log is in {self._work})")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for reader in self._readers.values():
            reader.close()
        processes.stop(self._process)
        os.remove(os.path.join(self._work, "broker.pid"))

    def _answers(self):
        if self._process.poll() is not None:
            raise RuntimeError(f"the broker ended at once; its log is in {self._work}")
        try:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            return bool(self._admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    @property
    def pid(self):
        """Process id of the broker."""
        return self._process.pid

    def create_topic(self, topic, partitions):
        """Creates a topic and waits until its partitions have leaders."""
        for future in self._admin.create_topics([NewTopic(topic, partitions, 1)]).values():
            future.result()
        self._partitions[topic] = partitions

        def has_leaders():
            found = self._admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics.get(topic)
            return found and len(found.partitions) == partitions and all(p.leader >= 0 for p in found.partitions.values())

        processes.wait_until(has_leaders, _START_TIMEOUT_S, f"the leaders of {topic}")

    def delete_topics(self, prefix):
        """Deletes all topics whose names start with a prefix, and the harness's reader of that group."""
        reader = self._readers.pop(prefix, None)
        if reader:
            reader.close()
        topics = [topic for topic in self._admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics if topic.startswith(prefix)]
        for future in (self._admin.delete_topics(topics) if topics else {}).values():
            future.result()

    def ends(self, topic):
        """The sum of the high watermarks of all partitions."""
        reader = self._reader("bench-harness")
        partitions = (TopicPartition(topic, partition) for partition in range(self._partitions[topic]))
        return sum(reader.get_watermark_offsets(partition, timeout=_REQUEST_TIMEOUT_S)[1] for partition in partitions)

    def committed(self, group, topic):
        """The sum of the offsets that a group has committed."""
        partitions = [TopicPartition(topic, partition) for partition in range(self._partitions[topic])]
        # A consumer that never joins: it reads offsets only.
        try:
            answered = self._reader(group).committed(partitions, timeout=_REQUEST_TIMEOUT_S)
        except KafkaException:
            return 0  # The group's coordinator is still loading; whoever asks will ask again.
        return sum(max(partition.offset, 0) for partition in answered if not partition.error)

    def _reader(self, group):
        if group not in self._readers:
            settings = {
                "bootstrap.servers": self.bootstrap,
                "group.id": group,
                "isolation.level": "read_uncommitted",
                "enable.auto.commit": False,
                "log_level": 0,
            }
            self._readers[group] = Consumer(settings)
        return self._readers[group]
