internal import CRdKafka
internal import System

/// What became of records: answers, lost connections, and beginning again.
extension DirectProducer {
    func answered(_ answer: BrokerLink.Answer, by link: BrokerLink) {
        switch answer {
        case .identity(let answer): learned(answer)
        case .produced(let batches, let answers): answered(batches, answers)
        case .fetched, .offsets, .epochEnds: break
        }
    }

    private func answered(_ items: [BrokerLink.Batch], _ answers: [ProduceAnswer]) {
        var disagrees: (error: rd_kafka_resp_err_t, reason: String)?
        for item in items {
            let place = Place(topic: item.topic, partition: Int(item.partition))
            let name = topics[item.topic].name
            // What the broker left out is as good as refused for now.
            let answer =
                answers.first { $0.partition == item.partition && $0.topic == name }
                ?? ProduceAnswer(topic: name, partition: item.partition, error: 13, baseOffset: -1, appendTimeMs: -1)
            let error = rd_kafka_resp_err_t(Int32(answer.error))
            let (outcome, begins) = topics[place.topic].partitions[place.partition].answered(
                error: answer.error, baseOffset: answer.baseOffset)
            switch outcome {
            case .written:
                replacementsInVain = 0
                report(item, answer)
            case .again(let asksLeader):
                if asksLeader {
                    topics[place.topic].partitions[place.partition].leader = nil
                    cluster.wantsMetadata = true
                }
                let inVain = topics[place.topic].partitions[place.partition].epochsInVain
                topics[place.topic].partitions[place.partition].resumesAtNs =
                    loop.monotonicNs + Self.refusalPauseNs << UInt64(min(inVain, 6))
                if begins == .epoch { (disagreement, replacementsInVain) = (error, max(replacementsInVain, inVain)) }
            case .refused(let mayBeWritten):
                report(item.batch, item.topic, item.partition, error, maybe: mayBeWritten)
            }
            let reason =
                answer.error == 0
                ? "\(name)/\(item.partition): what was new was told an old offset, \(answer.baseOffset)"
                : "\(KafkaError(error, place: "\(name)/\(item.partition)"))"
            switch begins {
            case .epoch: beganEpoch(place, reason)
            case .identity:
                disagrees = (answer.error == 0 ? RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER : error, reason)
            case nil: break
            }
            makeDue(place)
        }
        if let disagrees { beginAgain(disagrees.error, disagrees.reason) }
    }

    /// What may still be on its way to this partition from before is fenced with the next record.
    func beganEpoch(_ place: Place, _ reason: String) {
        replacementCount += 1
        log?(
            KafkaLogLine(
                level: .warning, facility: "PRODUCER",
                message: "\(topics[place.topic].name)/\(place.partition) begins a new epoch: \(reason)"))
    }

    /// Begins again as another producer, with what is not acknowledged. Some of it may be written twice.
    func beginAgain(_ error: rd_kafka_resp_err_t, _ reason: String) {
        disagreement = error
        log?(
            KafkaLogLine(
                level: .warning, facility: "PRODUCER",
                message: "begins again with a new identity, and sends again what is not acknowledged: \(reason)"))
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
        case .versions, .metadata, .fetch, .offsets, .epochEnds: break
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
                    rawError: RD_KAFKA_RESP_ERR_NO_ERROR, mayBeWritten: true,
                    mayBeRepeated: item.batch.mayBeRepeated))
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
                    timestampMs: batch.timestamps[index], rawError: error, mayBeWritten: maybe,
                    mayBeRepeated: batch.mayBeRepeated))
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
