internal import CRdKafka
internal import System

/// What became of records: answers, lost connections, and beginning again.
extension DirectProducer {
    func answered(_ answer: BrokerLink.Answer, by link: BrokerLink) {
        switch answer {
        case .identity(let answer): learned(answer)
        case .produced(let batches, let answers): answered(batches, answers)
        case .fetched, .offsets: break
        }
    }

    private func answered(_ items: [BrokerLink.Batch], _ answers: [ProduceAnswer]) {
        var disagrees: (error: rd_kafka_resp_err_t, place: String)?
        for item in items {
            let place = Place(topic: item.topic, partition: Int(item.partition))
            let name = topics[item.topic].name
            // What the broker left out is as good as refused for now.
            let answer =
                answers.first { $0.partition == item.partition && $0.topic == name }
                ?? ProduceAnswer(topic: name, partition: item.partition, error: 13, baseOffset: -1, appendTimeMs: -1)
            switch topics[place.topic].partitions[place.partition].answered(error: answer.error) {
            case .written:
                replacementsInVain = 0
                report(item, answer)
            case .again(let asksLeader):
                if asksLeader {
                    topics[place.topic].partitions[place.partition].leader = nil
                    cluster.wantsMetadata = true
                }
                topics[place.topic].partitions[place.partition].resumesAtNs =
                    loop.monotonicNs + Self.refusalPauseNs
            case .refused:
                report(item.batch, item.topic, item.partition, rd_kafka_resp_err_t(Int32(answer.error)), maybe: false)
            case .disagreement:
                disagrees = (rd_kafka_resp_err_t(Int32(answer.error)), "\(name)/\(item.partition)")
            }
            makeDue(place)
        }
        if let disagrees { beginAgain(disagrees.error, "\(KafkaError(disagrees.error, place: disagrees.place))") }
    }

    /// Begins again as another producer, with what is not acknowledged.
    func beginAgain(_ error: rd_kafka_resp_err_t, _ reason: String) {
        disagreement = error
        log?(
            KafkaLogLine(
                level: .warning, facility: "PRODUCER", message: "begins again with a new identity: \(reason)"))
        replacementCount += 1
        replacementsInVain += 1
        identity = nil
        asksIdentity = false
        // Nothing that was numbered by the old identity may be answered after this.
        cluster.reset()
        for topic in topics.indices {
            for partition in topics[topic].partitions.indices { topics[topic].partitions[partition].startOver() }
        }
    }

    func lost(_ question: BrokerLink.Question) {
        switch question {
        case .versions, .metadata, .fetch, .offsets: break
        case .identity: asksIdentity = false
        case .produce(let batches):
            for item in batches {
                topics[item.topic].partitions[Int(item.partition)].lost()
                makeDue(Place(topic: item.topic, partition: Int(item.partition)))
            }
        }
    }

    func report(_ item: BrokerLink.Batch, _ answer: ProduceAnswer) {
        waitingBytes -= item.batch.payloadBytes
        for index in item.batch.tags.indices {
            reports.append(
                DeliveryReport(
                    tag: item.batch.tags[index], topic: ProducerTopic(index: item.topic), partition: item.partition,
                    offset: answer.baseOffset >= 0 ? answer.baseOffset + Int64(index) : nil,
                    timestampMs: answer.appendTimeMs >= 0 ? answer.appendTimeMs : item.batch.timestamps[index],
                    rawError: RD_KAFKA_RESP_ERR_NO_ERROR, mayBeWritten: true))
        }
    }

    func report(
        _ batch: OutgoingBatch, _ topic: Int, _ partition: Int32, _ error: rd_kafka_resp_err_t, maybe: Bool
    ) {
        waitingBytes -= batch.payloadBytes
        for index in batch.tags.indices {
            reports.append(
                DeliveryReport(
                    tag: batch.tags[index], topic: ProducerTopic(index: topic), partition: partition, offset: nil,
                    timestampMs: batch.timestamps[index], rawError: error, mayBeWritten: maybe))
        }
    }

    func report(_ record: UnplacedRecord, _ topic: ProducerTopic, _ error: rd_kafka_resp_err_t) {
        waitingBytes -= record.byteCount
        reports.append(
            DeliveryReport(
                tag: record.tag, topic: topic, partition: record.partition ?? -1, offset: nil,
                timestampMs: record.timestampMs, rawError: error, mayBeWritten: false))
    }
}
