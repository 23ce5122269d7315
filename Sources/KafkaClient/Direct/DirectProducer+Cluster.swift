internal import CRdKafka
internal import System

/// What must be known before anything can be sent: who this producer is, and which broker leads what.
extension DirectProducer {
    /// Any link that can carry a question, connecting one if there is none.
    func anyLink() -> BrokerLink? {
        if let ready = links.values.first(where: \.isReady) ?? seeds.first(where: \.isReady) { return ready }
        let all = Array(links.values) + seeds
        guard !all.contains(where: \.isConnecting) else { return nil }
        // One after the other, so that one dead broker does not keep the rest from being asked.
        for offset in all.indices {
            let link = all[(nextSeed + offset) % all.count]
            guard loop.monotonicNs >= link.retryAtNs else { continue }
            nextSeed = (nextSeed + offset + 1) % all.count
            link.connect()
            break
        }
        return nil
    }

    func askMetadata() {
        guard !asksMetadata, !topics.isEmpty else { return }
        guard metadataAskedNs == 0 || loop.monotonicNs &- metadataAskedNs >= Self.metadataPauseNs else { return }
        guard let link = anyLink() else { return }
        metadataAskedNs = loop.monotonicNs
        wantsMetadata = false
        let names = Set(topics.map(\.name)).sorted()
        asksMetadata = link.send(.metadata, .metadata) { frame, version in
            frame.int32(Int32(names.count))
            for name in names { frame.string(name) }
            // Topics are made by those who know how many partitions they should have.
            if version >= 4 { frame.int8(0) }
        }
    }

    func askIdentity() {
        guard !asksIdentity, let link = anyLink() else { return }
        asksIdentity = link.send(.initProducerID, .identity) { frame, _ in
            frame.null()
            frame.int32(60_000)
        }
    }

    func linkIsReady(_ link: BrokerLink) { wake() }

    func learned(_ answer: IdentityAnswer) {
        asksIdentity = false
        // An error here passes: the broker is starting, or looks for a coordinator. The ticker asks again.
        if answer.error == 0 { identity = answer.identity }
    }

    func learned(_ metadata: MetadataAnswer) {
        asksMetadata = false
        for broker in metadata.brokers {
            if let known = links[broker.id] {
                if known.host == broker.host, known.port == Int(broker.port) { continue }
                known.reset()
            }
            links[broker.id] = BrokerLink(
                host: broker.host, port: Int(broker.port), owner: self, loop: loop, clientID: clientID)
        }
        // Where to begin is needed again only when nobody else answers.
        for seed in seeds where !seed.hasPending { seed.reset() }
        for answer in metadata.topics {
            for index in topics.indices where topics[index].name == answer.name { learned(answer, at: index) }
        }
    }

    func learned(_ answer: MetadataAnswer.Topic, at index: Int) {
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

    func place(_ record: UnplacedRecord, topic: Int, count: Int32) {
        let partition = record.partition ?? Self.partition(record.key?.span, count: count)
        guard partition >= 0, partition < count else {
            return report(record, ProducerTopic(index: topic), RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION)
        }
        add(
            Place(topic: topic, partition: Int(partition)), key: record.key?.span, value: record.value?.span,
            headers: record.headers, timestampMs: record.timestampMs, tag: record.tag)
    }
}
