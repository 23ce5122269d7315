import TestSupport
import Testing
import Wire

@testable import KafkaClient

/// Producers' partitions against brokers that keep Kafka's rules, and lose answers, refuse, move leaders, forget, and are
/// replaced by others that give the same ids again.
@Suite struct ProducerModelTests {
    @Test func `what is acknowledged is where it is said to be, in order and once; what failed for certain is absent`()
    {
        let base = SeededGenerator.freshSeed()
        print("seed \(base) (producers against a model; FANOUT_SEED=\(base) runs it again)")
        for round in 0..<1000 as Range<UInt64> {
            var world = World(seed: base &+ round)
            world.run()
            if let fault = world.fault {
                Issue.record("seed \(base &+ round): \(fault)")
                return
            }
        }
    }
}

/// One sending of a batch, as it is on its way.
private struct Sending {
    var identity: ProducerIdentity
    var sequence: Int32
    var tags: [UInt64]

    var lastSequence: Int32 { Int32((Int64(sequence) + Int64(tags.count) - 1) & 0x7fff_ffff) }
}

/// A partition of a cluster: what its leader has, how much of it is on all replicas, and what is known of producers.
private struct PartitionModel {
    private struct Known {
        var epoch: Int16
        /// The last five at most.
        var batches: [(sending: Sending, offset: Int)]
    }

    private var batches: [(sending: Sending, offset: Int)] = []
    private var replicated = 0
    private var known: [Int64: Known] = [:]
    /// Its memory of producers was lost: it may take a repeat for something new.
    private(set) var hasForgotten = false
    let recordsMax: Int

    init(recordsMax: Int) { self.recordsMax = recordsMax }

    var log: [UInt64] { batches.flatMap(\.sending.tags) }
    func knows(_ id: Int64) -> Bool { known[id] != nil }

    mutating func append(_ sending: Sending) -> (error: Int16, offset: Int) {
        if sending.tags.count > recordsMax { return (10, -1) }
        if let producer = known[sending.identity.id] {
            if sending.identity.epoch < producer.epoch { return (47, -1) }
            if sending.identity.epoch > producer.epoch {
                if sending.sequence != 0 { return (45, -1) }
            } else {
                let repeated = producer.batches.first {
                    $0.sending.sequence == sending.sequence && $0.sending.lastSequence == sending.lastSequence
                }
                if let repeated { return (0, repeated.offset) }
                let last = producer.batches.last?.sending.lastSequence ?? -1
                if sending.sequence != (last &+ 1) & 0x7fff_ffff { return (45, -1) }
            }
        }
        let offset = batches.last.map { $0.offset + $0.sending.tags.count } ?? 0
        batches.append((sending, offset))
        remember(sending, offset)
        return (0, offset)
    }

    private mutating func remember(_ sending: Sending, _ offset: Int) {
        var producer = known[sending.identity.id] ?? Known(epoch: sending.identity.epoch, batches: [])
        if producer.epoch != sending.identity.epoch { producer = Known(epoch: sending.identity.epoch, batches: []) }
        producer.batches = producer.batches.suffix(4) + [(sending, offset)]
        known[sending.identity.id] = producer
    }

    mutating func replicate() { replicated = batches.count }

    /// Another replica leads: it has all that all have, and some of the rest.
    mutating func moveLeader(_ random: inout SeededGenerator) {
        batches.removeLast(Int.random(in: 0...batches.count - replicated, using: &random))
        known = [:]
        for (sending, offset) in batches { remember(sending, offset) }
        guard Bool.random(using: &random) else { return }
        // From a snapshot: only the last batch of each.
        known = known.mapValues { Known(epoch: $0.epoch, batches: $0.batches.suffix(1)) }
    }

    mutating func forget() {
        known = [:]
        hasForgotten = true
    }
}

/// Two producers, two partitions, and one cluster after the other.
private struct World {
    private struct Client {
        var partitions = [OutgoingPartition(isPatient: false), OutgoingPartition(isPatient: false)]
        var identity: ProducerIdentity?
        var cluster = 0
        var made: UInt64 = 0
    }

    private enum Report {
        case written(offset: Int, cluster: Int, mayBeRepeated: Bool)
        case failed(mayBeWritten: Bool)
    }

    private static let records: UInt64 = 60

    private var random: SeededGenerator
    private var clients = [Client(), Client()]
    private var logs: [PartitionModel]
    private var cluster = 0
    private var lastID: Int64 = 0
    /// What is still on its way, and whose answer nobody waits for.
    private var late: [(partition: Int, sending: Sending)] = []
    private var reports: [UInt64: Report] = [:]
    /// Where something late was taken by a broker that had forgotten its producer.
    private var disordered: Set<Int> = []
    private let mayForget: Bool
    private let mayBeReplaced: Bool
    private(set) var fault: String?

    init(seed: UInt64) {
        random = SeededGenerator(seed)
        let recordsMax = Int.random(in: 0..<4, using: &random) == 0 ? 3 : 1000
        logs = [PartitionModel(recordsMax: recordsMax), PartitionModel(recordsMax: recordsMax)]
        mayForget = Int.random(in: 0..<4, using: &random) == 0
        mayBeReplaced = Int.random(in: 0..<4, using: &random) == 0
    }

    private mutating func chance(_ of: Int) -> Bool { Int.random(in: 0..<of, using: &random) == 0 }

    mutating func run() {
        var now: UInt64 = 0
        while reports.count < Int(Self.records) * clients.count {
            now += 1
            happen()
            for client in clients.indices { step(client, now) }
            guard now < 100_000 else {
                fault = "no end: \(reports.count) reports"
                return
            }
        }
        while !late.isEmpty { deliverLate() }
        check()
    }

    /// What happens to the cluster.
    private mutating func happen() {
        if chance(10) { logs[Int.random(in: 0..<2, using: &random)].moveLeader(&random) }
        if !late.isEmpty, chance(4) { deliverLate() }
        if mayForget, chance(40) { logs[Int.random(in: 0..<2, using: &random)].forget() }
        guard mayBeReplaced, chance(60) else { return }
        // All is gone, and ids are given from the first on. Connections, and what was in them, end with the old one.
        cluster += 1
        lastID = 0
        late = []
        disordered = []
        logs = logs.map { PartitionModel(recordsMax: $0.recordsMax) }
    }

    private mutating func deliverLate() {
        let (partition, sending) = late.remove(at: Int.random(in: late.indices, using: &random))
        if !logs[partition].knows(sending.identity.id) { disordered.insert(partition) }
        _ = logs[partition].append(sending)
    }

    private mutating func step(_ client: Int, _ now: UInt64) {
        if clients[client].made < Self.records, chance(2) { make(client, now) }
        // Whoever connects asks whose cluster it is before anything is written there.
        if clients[client].cluster != cluster {
            clients[client].cluster = cluster
            for partition in 0..<2 { clients[client].partitions[partition].lost() }
            beginAgain(client)
        }
        let identity = clients[client].identity ?? identity(client)
        for partition in 0..<2 {
            if chance(20) { expire(client, partition, before: now > 20 ? now - 20 : 0) }
            guard clients[client].partitions[partition].maySend(nowNs: now) else { continue }
            let batch = clients[client].partitions[partition].send(identity)
            let sending = Sending(
                identity: clients[client].partitions[partition].identity ?? identity, sequence: batch.sequence ?? -1,
                tags: batch.tags)
            if let answer = answer(sending, partition) {
                take(answer, batch, client, partition, now)
            } else {
                clients[client].partitions[partition].lost()
            }
        }
    }

    private mutating func make(_ client: Int, _ now: UInt64) {
        let limits = OutgoingPartition.Limits(batchBytes: 400, batchRecords: 10)
        for _ in 0..<Int.random(in: 1..<6, using: &random) where clients[client].made < Self.records {
            let value = [UInt8](repeating: 7, count: Int.random(in: 0..<60, using: &random))
            let batch = clients[client].partitions[Int.random(in: 0..<2, using: &random)]
                .batch(for: value.count + 64, limits, nowNs: now)
            batch.append(
                key: nil, value: value.span, headers: RecordHeaders(), timestampMs: 5,
                tag: UInt64(client) * 1_000_000 + clients[client].made)
            clients[client].made += 1
        }
    }

    private mutating func identity(_ client: Int) -> ProducerIdentity {
        lastID += 1
        let identity = ProducerIdentity(id: lastID, epoch: 0)
        clients[client].identity = identity
        return identity
    }

    private mutating func beginAgain(_ client: Int) {
        for partition in 0..<2 { clients[client].partitions[partition].startOver() }
        _ = identity(client)
    }

    /// What the client hears; nil when it hears nothing.
    private mutating func answer(_ sending: Sending, _ partition: Int) -> (error: Int16, offset: Int)? {
        switch Int.random(in: 0..<14, using: &random) {
        // Lost on the way there, or only late.
        case 0: return nil
        case 1:
            late.append((partition, sending))
            return nil
        // Lost on the way back, with and without the followers.
        case 2:
            if logs[partition].append(sending).error == 0, chance(2) { logs[partition].replicate() }
            return nil
        // Repeated on the way.
        case 3: late.append((partition, sending))
        // Refused.
        case 4: return ([3, 6, 14, 19, 89][Int.random(in: 0..<5, using: &random)], -1)
        case 5 where chance(2): return ([-1, 29, 87][Int.random(in: 0..<3, using: &random)], -1)
        // Appended, but not certainly for good.
        case 6:
            let (error, offset) = logs[partition].append(sending)
            return error == 0 ? ([6, 7, 20, 56, -1][Int.random(in: 0..<5, using: &random)], -1) : (error, offset)
        default: break
        }
        let (error, offset) = logs[partition].append(sending)
        if error == 0 { logs[partition].replicate() }
        return (error, offset)
    }

    private mutating func take(
        _ answer: (error: Int16, offset: Int), _ batch: OutgoingBatch, _ client: Int, _ partition: Int, _ now: UInt64
    ) {
        let (outcome, begins) = clients[client].partitions[partition].answered(
            error: answer.error, baseOffset: Int64(answer.offset))
        switch outcome {
        case .written:
            for (index, tag) in batch.tags.enumerated() {
                report(
                    tag,
                    .written(offset: answer.offset + index, cluster: cluster, mayBeRepeated: batch.mayBeRepeated))
            }
        case .again:
            clients[client].partitions[partition].resumesAtNs = now + UInt64.random(in: 0..<3, using: &random)
        case .refused(let mayBeWritten):
            for tag in batch.tags { report(tag, .failed(mayBeWritten: mayBeWritten)) }
        }
        if begins == .identity {
            fault = fault ?? "the client took its numbers for another's"
            beginAgain(client)
        }
    }

    private mutating func expire(_ client: Int, _ partition: Int, before: UInt64) {
        let (batches, _) = clients[client].partitions[partition].expire(before: before)
        for batch in batches {
            for tag in batch.tags { report(tag, .failed(mayBeWritten: batch.isUncertain)) }
        }
    }

    private mutating func report(_ tag: UInt64, _ report: Report) {
        if reports.updateValue(report, forKey: tag) != nil { fault = "\(tag) was reported twice" }
    }

    private mutating func check() {
        for (partition, model) in logs.enumerated() {
            let log = model.log
            var last: [UInt64: UInt64] = [:]
            var counts: [UInt64: Int] = [:]
            for tag in log {
                counts[tag, default: 0] += 1
                guard counts[tag] == 1 else { continue }
                let client = tag / 1_000_000
                if let before = last[client], before > tag, !disordered.contains(partition) {
                    fault = fault ?? "\(tag) stands behind \(before): \(log)"
                }
                last[client] = max(tag, last[client] ?? 0)
            }
            for (tag, count) in counts where count > 1 && !model.hasForgotten {
                if case .written(_, _, let mayBeRepeated)? = reports[tag], !mayBeRepeated {
                    fault = fault ?? "\(tag) is there \(count) times and nobody said so: \(log)"
                }
            }
        }
        let kept = logs.map(\.log)
        for (tag, report) in reports {
            switch report {
            case .written(let offset, cluster, _):
                if !kept.contains(where: { $0.indices.contains(offset) && $0[offset] == tag }) {
                    fault = fault ?? "\(tag) is not at \(offset): \(kept)"
                }
            case .failed(mayBeWritten: false):
                if kept.contains(where: { $0.contains(tag) }) {
                    fault = fault ?? "\(tag) failed for certain and is there: \(kept)"
                }
            default: break
            }
        }
    }
}
