import Foundation
import TestSupport
import Testing
import Wire

@testable import StreamJoin

/// What a reader of the join's output sees, after dropping by source position.
private struct Reader {
    struct Message {
        var accepted: AcceptedMessage
        var recipients: [UserID] = []
        var largePartitions: Set<Int32> = []
    }

    var messages: [Int64: Message] = [:]
    var errors: [Int64: String] = [:]
    var answeredAgain: [Int64: Int64] = [:]
    var memberEvents: [Int64: (chat: ChatID, user: UserID, change: String, version: Int64, to: Set<UserID>)] = [:]
    var bulkEvents: [Int64: (chat: ChatID, version: Int64, to: Set<UserID>)] = [:]
    var rejected: [Int64: String] = [:]
    var signals: [Int64: (chat: ChatID, from: UserID, to: [UserID])] = [:]
    /// For each large-chat record: who of the partition belonged to the audience by `enter` and `leave`.
    var audiences: [Int64: Set<UserID>] = [:]

    init(_ simulation: borrowing JoinSimulation) throws {
        for record in simulation.outputs["messages/0"] ?? [] {
            let value = try #require(record.value)
            let message = try AcceptedMessage(decoding: value.span)
            let lastSeq = messages.keys.max() ?? -1
            if message.seq > lastSeq {
                if let last = messages[lastSeq] { #expect(last.accepted.ts <= message.ts, "time never runs back") }
                messages[message.seq] = Message(accepted: message)
            }
        }
        for record in simulation.outputs["rejected/0"] ?? [] {
            let value = try #require(record.value)
            let json = try #require(try JSONSerialization.jsonObject(with: Data(value)) as? [String: Any])
            let source = try #require(json["source"] as? [String: Any])
            let offset = try #require(source["offset"] as? Int64)
            if source["topic"] as? String == "chat.incoming" { rejected[offset] = json["reason"] as? String }
        }
        for partition in 0..<JoinSimulation.deliveryPartitions {
            try read(simulation.outputs["deliveries/\(partition)"] ?? [], partition)
        }
    }

    private mutating func read(_ records: [JoinSimulation.Written], _ partition: Int32) throws {
        var highest: [String: Int64] = [:]
        var audience: [ChatID: Set<UserID>] = [:]
        for record in records {
            let position = SourcePosition(text: record.source.utf8.span)
            let source = try #require(position)
            // What Delivery does, and all that it does.
            guard source.offset > highest[source.topic] ?? -1 else { continue }
            highest[source.topic] = source.offset
            let value = try #require(record.value)
            let delivery = try Delivered(partition: partition, source: record.source, value: value.span)
            let decoded = try DeliveryRecord(decoding: value.span)
            for user in delivery.to { #expect(user.partition(count: JoinSimulation.deliveryPartitions) == partition) }
            #expect(Set(delivery.to).count == delivery.to.count)
            if let chat = decoded.enters { audience[chat, default: []].formUnion(delivery.to) }
            if let chat = decoded.leaves { audience[chat, default: []].subtract(delivery.to) }
            let event = try #require(
                try JSONSerialization.jsonObject(with: Data(value[decoded.event])) as? [String: Any])
            switch event["type"] as? String {
            case "message":
                #expect(event["seq"] as? Int64 == source.offset)
                messages[source.offset]?.recipients += delivery.to
                if let chat = delivery.largeChat {
                    messages[source.offset]?.largePartitions.insert(partition)
                    audiences[source.offset, default: []].formUnion(audience[chat] ?? [])
                }
            case "error": errors[source.offset] = event["code"] as? String
            case "sent": answeredAgain[source.offset] = event["seq"] as? Int64
            case "member":
                let entry = (
                    chat: try #require(ChatID(event["chat"] as? String ?? "")),
                    user: try #require(UserID(event["user"] as? String ?? "")),
                    change: event["change"] as? String ?? "", version: event["meta_version"] as? Int64 ?? -1
                )
                var to = memberEvents[source.offset]?.to ?? []
                to.formUnion(delivery.to)
                memberEvents[source.offset] = (entry.chat, entry.user, entry.change, entry.version, to)
            case "members_changed":
                let chat = try #require(ChatID(event["chat"] as? String ?? ""))
                let to = bulkEvents[source.offset]?.to ?? []
                bulkEvents[source.offset] = (
                    chat, event["meta_version"] as? Int64 ?? -1, to.union(delivery.to)
                )
                let counts = ["added", "removed", "roles"].map { event[$0] as? Int ?? 0 }
                #expect(counts.reduce(0, +) > 0)
            case "typing", "receipt":
                let chat = try #require(ChatID(event["chat"] as? String ?? ""))
                let from = try #require(UserID(event["from"] as? String ?? ""))
                signals[source.offset] = (chat, from, (signals[source.offset]?.to ?? []) + delivery.to)
            case let other: Issue.record("event of type \(other ?? "none")")
            }
        }
    }
}

@Suite struct JoinModelTests {
    static let seedCount = ProcessInfo.processInfo.environment["FANOUT_SEEDS"].flatMap(Int.init) ?? 10

    /// Returns how many memberships were read from Postgres.
    @discardableResult
    private func check(_ seed: UInt64, _ plan: JoinSimulation.Plan) throws -> Int {
        var simulation = JoinSimulation(seed: seed, plan)
        simulation.run()
        let reader = try Reader(simulation)
        var accepted: [String: Int64] = [:]
        var lastVersion: [ChatID: Int64] = [:]
        for (index, record) in simulation.incoming.enumerated() {
            let offset = Int64(index)
            guard let message = try? IncomingMessage(decoding: record.value.span) else {
                #expect(reader.rejected[offset] == "malformed" && reader.messages[offset] == nil)
                continue
            }
            let identity = "\(message.from) \(message.id)"
            let history = simulation.history[message.chat] ?? [:]
            let sees = history.filter { $0.key >= lastVersion[message.chat] ?? 0 }
            if let seen = reader.messages[offset] {
                #expect(reader.errors[offset] == nil, "accepted and refused at once")
                if let first = accepted[identity] {
                    // Beyond the window a repeat is a new message.
                    #expect(reader.messages.keys.filter { $0 > first && $0 < offset }.count >= 11)
                }
                accepted[identity] = offset
                // All recipients together are the members at one version, not older than the sender had seen nor than
                // the chat's message before was joined at.
                let known = message.metaVersion > history.keys.max() ?? 0 ? 0 : message.metaVersion
                if simulation.snapshotCount > 0 {
                    checkSeen(seen, known: known, history)
                    continue
                }
                let fitting = sees.filter { version, members in
                    guard version >= known, members[message.from] != nil else { return false }
                    if seen.largePartitions.isEmpty { return Set(members.keys) == Set(seen.recipients) }
                    return members.count > plan.largeChat && Set(members.keys) == reader.audiences[offset]
                }
                let version = try #require(
                    fitting.keys.min(),
                    "seq \(offset) in \(message.chat) from \(message.from), version \(message.metaVersion): joined with \(seen.recipients) (large: \(seen.largePartitions), audience \(String(describing: reader.audiences[offset]))), in \(history.sorted { $0.key < $1.key })"
                )
                lastVersion[message.chat] = version
                #expect(seen.recipients.count == Set(seen.recipients).count, "everyone once")
                #expect([0, Int(JoinSimulation.deliveryPartitions)].contains(seen.largePartitions.count))
                if let target = message.target {
                    let value = simulation.incoming[Int(target)].value
                    let decoded = try? IncomingMessage(decoding: value.span)
                    let original = try #require(decoded)
                    #expect(original.kind == .text && original.chat == message.chat)
                    if original.from != message.from {
                        #expect(message.kind == .delete)
                        #expect(fitting.values.contains { $0[message.from] == .admin })
                    }
                }
            } else if let first = reader.answeredAgain[offset] {
                #expect(accepted[identity] == first && reader.errors[offset] == nil)
            } else {
                let code = try #require(reader.errors[offset], "seq \(offset) is neither accepted nor refused")
                #expect(reader.rejected[offset] == code)
                switch code {
                case "unavailable": #expect(plan.refusesInTime && message.metaVersion > history.keys.max() ?? 0)
                case "not_member" where simulation.snapshotCount > 0: break
                case "not_member": #expect(sees.values.contains { $0[message.from] == nil } || sees.isEmpty)
                case "not_allowed", "unknown_message": #expect(message.target != nil)
                default: Issue.record("refused as \(code)")
                }
            }
        }
        try checkChanges(simulation, reader)
        for (offset, signal) in reader.signals {
            let history = simulation.history[signal.chat] ?? [:]
            #expect(Set(signal.to).count == signal.to.count, "signal \(offset) reaches everyone once")
            // A repeat may be joined with another membership than the first time, and what is read again comes in pieces.
            let isOneState = simulation.snapshotCount == 0 && simulation.crashCount == 0
            let states = history.values.map { Set($0.keys) }
            let ever = states.reduce(into: Set<UserID>()) { $0.formUnion($1) }
            #expect(
                (isOneState ? states : [ever]).contains { members in
                    members.contains(signal.from) && members.isSuperset(of: signal.to)
                }, "signal \(offset) reached \(signal.to)")
        }
        return simulation.membershipCount
    }

    /// While everything is read again, a chat's changes come one by one, so a message may meet a state that never was. What
    /// its sender has seen holds all the same: who was a member in every state since gets it, and who was in none does not.
    private func checkSeen(
        _ seen: Reader.Message, known: Int64, _ history: [Int64: [UserID: MemberRow.Role]]
    ) {
        guard seen.largePartitions.isEmpty else { return }
        let states = history.filter { $0.key >= known }.map { Set($0.value.keys) }
        let to = Set(seen.recipients)
        #expect(to.count == seen.recipients.count, "everyone once")
        let always = states.dropFirst().reduce(states[0]) { $0.intersection($1) }
        let ever = states.reduce(into: Set<UserID>()) { $0.formUnion($1) }
        #expect(always.isSubset(of: to) && to.isSubset(of: ever), "seen \(known): \(to) of \(history)")
    }

    /// Every change of membership is told once, in order, with a version by which it holds.
    private func checkChanges(_ simulation: borrowing JoinSimulation, _ reader: Reader) throws {
        var told: [ChatID: [UserID: MemberRow.Role?]] = [:]
        for (_, event) in reader.memberEvents.sorted(by: { $0.key < $1.key }) {
            let isIn = told[event.chat]?[event.user] != nil
            switch event.change {
            case "added": #expect(!isIn)
            // An addition may have been compacted away before the join saw it; the removal is told all the same.
            case "removed": #expect(isIn || simulation.plan.compaction)
            default: #expect(isIn)
            }
            told[event.chat, default: [:]][event.user] = event.change == "removed" ? nil : .some(.member)
            #expect(event.to.contains(event.user), "whom it concerns is told")
            let history = simulation.history[event.chat]?[event.version]
            let state = try #require(history, "version \(event.version) has never been")
            // Within one transaction the version can be a later one, in which the user may be gone again; and a second
            // snapshot tells a change before the version that came of it.
            if state[event.user] == nil, event.change == "added", simulation.snapshotCount == 0 {
                #expect(reader.memberEvents.values.contains { $0.user == event.user && $0.change == "removed" })
            }
        }
        try checkOthers(simulation, reader)
        for (chat, row) in simulation.database {
            #expect(Set(row.members.keys) == Set(told[chat]?.keys.map { $0 } ?? []), "the events add up to the table")
        }
    }

    /// In a small chat each member is told of each change, or told later that there were many, or of what became of
    /// themself: then they ask who is in the chat.
    private func checkOthers(_ simulation: borrowing JoinSimulation, _ reader: Reader) throws {
        guard simulation.snapshotCount == 0 else { return }
        let largeChat = simulation.plan.largeChat
        for (offset, event) in reader.memberEvents {
            guard let history = simulation.history[event.chat] else { continue }
            guard history.values.allSatisfy({ $0.count <= largeChat }), let state = history[event.version] else {
                continue
            }
            for user in state.keys where !event.to.contains(user) {
                let isToldOfMany = reader.bulkEvents.contains {
                    $0.key > offset && $0.value.chat == event.chat && $0.value.to.contains(user)
                }
                let isConcerned = reader.memberEvents.contains {
                    $0.key > offset && $0.value.chat == event.chat && $0.value.user == user
                }
                #expect(isToldOfMany || isConcerned, "\(user) does not know of \(event) at \(offset)")
            }
        }
        for (offset, event) in reader.bulkEvents {
            let state = try #require(simulation.history[event.chat]?[event.version])
            #expect(state.count <= largeChat && event.to == Set(state.keys), "at \(offset)")
        }
    }

    @discardableResult
    private func run(_ name: String, _ plan: JoinSimulation.Plan) throws -> Int {
        let base = SeededGenerator.freshSeed()
        print("seed \(base) (\(name); FANOUT_SEED=\(base) runs it again, FANOUT_SEEDS=n more of them)")
        var membershipCount = 0
        for index in 0..<UInt64(Self.seedCount) {
            let seed = base &+ index
            do {
                membershipCount += try check(seed, plan)
            } catch {
                Issue.record("FANOUT_SEED=\(seed): \(error)")
                break
            }
        }
        return membershipCount
    }

    @Test func `a join equals the model, whatever the order in which its topics come`() throws {
        try run("undisturbed", JoinSimulation.Plan())
    }

    @Test func `a join that asks Postgres when the log is late equals the model`() throws {
        try run("asking Postgres", JoinSimulation.Plan(asksPostgres: true))
    }

    @Test func `a join that crashes again and again equals the model`() throws {
        try run("crashes", JoinSimulation.Plan(crashes: true))
    }

    @Test func `a join that crashes after it has asked Postgres equals the model`() throws {
        let plan = JoinSimulation.Plan(crashes: true, zombies: true, asksPostgres: true)
        let read = try run("crashes, asking Postgres", plan)
        #expect(read > 0, "Postgres was asked, and what it said used")
    }

    @Test func `a message whose version never comes is refused in time, and no other`() throws {
        try run("refused in time", JoinSimulation.Plan(refusesInTime: true))
    }

    @Test func `a join that restores from a compacted log equals the model`() throws {
        try run("compaction", JoinSimulation.Plan(crashes: true, asksPostgres: true, compaction: true))
    }

    @Test func `while CDC reads everything again nobody is lost and nobody removed is reached`() throws {
        try run("snapshots", JoinSimulation.Plan(crashes: true, snapshots: true, compaction: true))
    }

    @Test func `a restart at any step of a short history equals the model`() throws {
        let seed = SeededGenerator.freshSeed()
        print("seed \(seed) (a restart at any step; FANOUT_SEED=\(seed) runs it again)")
        for step in 0..<300 {
            do {
                try check(seed, JoinSimulation.Plan(crashAt: step, steps: 300))
            } catch {
                Issue.record("FANOUT_SEED=\(seed), step \(step): \(error)")
                return
            }
        }
    }

    @Test func `two joins that write at once equal the model`() throws {
        try run("zombies", JoinSimulation.Plan(crashes: true, zombies: true))
    }
}
