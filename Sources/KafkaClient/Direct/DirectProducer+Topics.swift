internal import CRdKafka
internal import System

/// What must be known before anything can be sent: who this producer is, and how many partitions there are.
extension DirectProducer {
    var topicNames: [String] { topics.map(\.name) }

    func askIdentity() {
        guard !asksIdentity, let link = cluster.anyLink() else { return }
        asksIdentity = link.send(.initProducerID, .identity) { frame, _ in
            frame.null()
            frame.int32(60_000)
        }
    }

    func learned(_ answer: IdentityAnswer) {
        asksIdentity = false
        guard answer.error != 0 else {
            identity = answer.identity
            identityError = 0
            return
        }
        // It may pass: the broker is starting, or looks for a coordinator. The ticker asks again.
        guard answer.error != identityError else { return }
        identityError = answer.error
        let error = KafkaError(rd_kafka_resp_err_t(Int32(answer.error)), place: "InitProducerId")
        log?(KafkaLogLine(level: .warning, facility: "PRODUCER", message: "gets no identity: \(error)"))
    }

    func learned(_ topic: MetadataAnswer.Topic) {
        for index in topics.indices where topics[index].name == topic.name { learned(topic, at: index) }
    }

    private func learned(_ answer: MetadataAnswer.Topic, at index: Int) {
        topics[index].error = answer.error
        guard answer.error == 0 else {
            if topics[index].unknownSinceNs == nil { topics[index].unknownSinceNs = loop.monotonicNs }
            return
        }
        topics[index].unknownSinceNs = nil
        let count = Int32(answer.partitions.count)
        while topics[index].partitions.count < count {
            topics[index].partitions.append(OutgoingPartition(isPatient: topics[index].isPatient))
        }
        topics[index].partitionCount = count
        for partition in answer.partitions where partition.index >= 0 && partition.index < count {
            topics[index].partitions[Int(partition.index)].leader = partition.leader >= 0 ? partition.leader : nil
        }
        let unplaced = topics[index].unplaced
        topics[index].unplaced = []
        for record in unplaced { place(record, topic: index, count: count) }
    }

    private func place(_ record: UnplacedRecord, topic: Int, count: Int32) {
        let partition = record.partition ?? Self.partition(record.key?.span, count: count)
        guard partition >= 0, partition < count else {
            return report(record, ProducerTopic(index: topic), RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION)
        }
        add(
            Place(topic: topic, partition: Int(partition)), key: record.key?.span, value: record.value?.span,
            headers: record.headers, timestampMs: record.timestampMs, tag: record.tag)
    }
}
