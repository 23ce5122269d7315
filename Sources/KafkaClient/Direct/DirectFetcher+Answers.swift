internal import CRdKafka
internal import System

/// What is answered to the questions of a fetcher, and what becomes of those that are not.
extension DirectFetcher {
    func answered(_ answer: BrokerLink.Answer, by link: BrokerLink) {
        switch answer {
        case .fetched(let question, let answer, let bytes):
            let hadRoom = bytes.count < fetchBytesMax / 2
            for partition in answer.partitions { take(partition, bytes, hadRoom: hadRoom) }
            for asked in question.partitions {
                entries[asked.place].state.leftOut(life: asked.life, nowNs: loop.monotonicNs)
            }
        case .offsets(let question, let answers):
            for answer in answers {
                let outcome = entries[answer.asked.place].state.found(
                    answer.offset, epoch: answer.epoch, error: answer.error, life: answer.asked.life,
                    nowNs: loop.monotonicNs)
                follow(outcome, at: answer.asked.place)
            }
            for asked in question.partitions {
                entries[asked.place].state.leftOut(life: asked.life, nowNs: loop.monotonicNs)
            }
        case .epochEnds(let question, let answers):
            for answer in answers {
                let outcome = entries[answer.asked.place].state.found(
                    epochEnd: answer.offset, epoch: answer.epoch, error: answer.error, life: answer.asked.life,
                    nowNs: loop.monotonicNs)
                follow(outcome, at: answer.asked.place)
            }
            for asked in question.partitions {
                entries[asked.place].state.leftOut(life: asked.life, nowNs: loop.monotonicNs)
            }
        case .identity, .produced: break
        }
        wake()
    }

    private func take(_ partition: FetchedPartition, _ bytes: AnswerBytes, hadRoom: Bool) {
        let (index, life) = (partition.asked.place, partition.asked.life)
        guard partition.error == 0 else {
            let outcome = entries[index].state.failed(partition.error, life: life, nowNs: loop.monotonicNs)
            return follow(outcome, at: index)
        }
        guard
            let records = entries[index].state.answered(
                bytes.span, partition.records, end: partition.end, life: life, hadRoom: hadRoom,
                nowNs: loop.monotonicNs)
        else { return }
        var event: ConsumerEvent?
        if records.isOld {
            event = .error(
                KafkaError(
                    RD_KAFKA_RESP_ERR__BAD_MSG,
                    message:
                        "records of a format before Apache Kafka 0.11; only librdkafka reads them, which naming any "
                        + "property chooses (--kafka-property log_level=6)", place: "consume \(name(entries[index]))"),
                name(entries[index]))
        } else if let skipsTo = records.skipsTo {
            event = .passedOver(
                name(entries[index]), records.from..<skipsTo, reason: "what is stored there is damaged")
        } else if let end = records.end, reportsEnd {
            event = .endOfPartition(name(entries[index]), nextOffset: end)
        }
        guard event != nil || !records.range.isEmpty else { return }
        var incoming: IncomingRecords?
        if !records.range.isEmpty {
            incoming = IncomingRecords(bytes, records.range, from: records.from, aborted: partition.aborted)
            queuedBytes += records.range.count
        }
        arrivals.append(
            Arrival(place: index, life: life, records: incoming, event: event, skipsTo: records.skipsTo))
    }

    func lost(_ question: BrokerLink.Question) {
        switch question {
        case .fetch(let asked), .offsets(let asked), .epochEnds(let asked):
            for partition in asked.partitions { entries[partition.place].state.lost(life: partition.life) }
        case .versions, .metadata, .identity, .produce: break
        }
    }

    /// What those who know the cluster say about a topic.
    func learned(_ topic: MetadataAnswer.Topic) {
        let known = Dictionary(topic.partitions.map { ($0.index, $0) }) { first, _ in first }
        if topic.error == 0, let place = topics.firstIndex(of: topic.name) { logs[place] = topic.log }
        for index in entries.indices where topics[entries[index].topic] == topic.name {
            let partition = known[entries[index].partition]
            let outcome: IncomingPartition.Outcome
            if topic.error == 0, let partition, partition.leader >= 0 {
                outcome = entries[index].state.learned(
                    leader: partition.leader, epoch: partition.leaderEpoch, log: topic.log, nowNs: loop.monotonicNs)
            } else {
                let error = topic.error != 0 ? topic.error : partition == nil ? 3 : 5
                outcome = entries[index].state.hasNoLeader(
                    error: error, isTopic: topic.error != 0, nowNs: loop.monotonicNs)
            }
            follow(outcome, at: index)
        }
        wake()
    }

    func follow(_ outcome: IncomingPartition.Outcome, at index: Int) {
        let partition = name(entries[index])
        switch outcome {
        case .nothing: break
        case .askLeader: cluster.wantsMetadata = true
        case .failed(let code):
            let error = KafkaError(rd_kafka_resp_err_t(Int32(code)), place: "consume \(partition)")
            arrive(.error(error, partition), at: index)
        case .noPlace:
            let error = KafkaError(
                RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, message: "no such place in the log", place: "consume \(partition)"
            )
            arrive(.error(error, partition), at: index)
        case .lost(let reason, let position):
            let state = entries[index].state
            let place = LostPlace(
                partition: partition, position: position, log: state.log,
                leaderEpoch: state.epoch >= 0 ? state.epoch : nil, reason: reason)
            arrive(.lostPlace(place), at: index)
        }
    }

    func arrive(_ event: ConsumerEvent, at index: Int) {
        arrivals.append(Arrival(place: index, life: entries[index].state.life, records: nil, event: event))
    }
}
