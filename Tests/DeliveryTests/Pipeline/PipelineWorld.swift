import PushLink
import StreamJoin
import TestSupport
import Wire

@testable import Ingest

/// The whole pipeline on one thread and from one seed: devices say something to chat servers, whose frames become records of
/// `chat.incoming`; joins make deliveries of them; workers push these over links to the sessions of devices. Each half is the
/// simulation that its own tests use (`JoinSimulation`, `DeliveryWorld`), and here one writes what the other reads.
///
/// Joins die and repeat what was not committed, or go on writing beside their successor; CDC is late and repeats itself;
/// links break, and workers and chat servers die; partitions change owners; partitions of the log are read in any order.
final class PipelineWorld {
    private var join: JoinSimulation
    let delivery: DeliveryWorld
    private var random: SplitMix
    /// How many of a partition's deliveries have been passed on, and the highest offset from each source.
    private var passed: [Int32: Int] = [:]
    private var highest: [String: Int64] = [:]
    /// The `meta_version` that a record of a membership change tells, by where it stands.
    private var versions: [Int32: [Int64: (chat: ChatID, version: Int64)]] = [:]
    /// Which message the record at a place is, by its place in `chat.incoming`.
    private var seqs: [Int32: [Int64: Int64]] = [:]

    init(seed: UInt64) {
        // Large chats have their own rules, which the two simulations try apart.
        join = JoinSimulation(seed: seed, JoinSimulation.Plan(crashes: true, zombies: true, largeChat: 1_000))
        random = SplitMix(seed: seed)
        delivery = DeliveryWorld(seed: seed, users: join.users, partitionCount: JoinSimulation.deliveryPartitions)
        delivery.writesItself = false
        for device in delivery.devices {
            // Each wants everything, from the beginning.
            device.cursor = .start
            device.start = .start
        }
        for index in delivery.devices.indices where index % 2 == 0 { delivery.pickUp(index) }
        join.startWorker()
    }

    func run(steps: Int) throws {
        for _ in 0..<steps {
            switch random.below(100) {
            case 0..<50: join.step()
            case 50: join.crash()
            case 51..<56: try say()
            default: delivery.step()
            }
            try passOn()
        }
        join.finish()
        try passOn()
        delivery.settle()
    }

    /// A device that has a session sends a message, with the highest version of the chat that it has been shown. Now and then
    /// the chat server's producer writes it twice, or the device has not seen the answer and sends it again.
    private func say() throws {
        guard let index = delivery.places.keys.sorted().randomElement(using: &random),
            let chat = join.chats.randomElement(using: &random)
        else { return }
        let device = delivery.devices[index]
        let partition = device.user.partition(count: delivery.partitionCount)
        let known = device.seen.compactMap { versions[partition]?[$0.offset] }.filter { $0.chat == chat }
        let frame = #"{"type":"send","id":"\#(MessageID.random(using: &random))","chat":"\#(chat)","text":"hello"}"#
        let bytes = Array(frame.utf8)
        guard case .send(var message) = try ClientFrame(decoding: bytes.span) else { return }
        message.from = device.user
        message.device = device.device
        message.metaVersion = known.map(\.version).max() ?? 0
        var json = JSONWriter()
        message.write(to: &json, source: bytes.span)
        for _ in 0..<(random.chance(15) ? 2 : 1) { join.incoming.append((json.bytes, join.clockMs)) }
    }

    /// What the join has written since.
    private func passOn() throws {
        for partition in 0..<delivery.partitionCount {
            let records = join.outputs["deliveries/\(partition)"] ?? []
            for index in passed[partition, default: 0]..<records.count {
                guard let value = records[index].value,
                    let source = SourcePosition(text: records[index].source.utf8.span)
                else { continue }
                let name = "\(partition) \(source.topic)"
                let isRepeat = source.offset <= highest[name] ?? -1
                highest[name] = max(highest[name] ?? -1, source.offset)
                note(value, of: source, in: partition)
                try delivery.write(value, source: records[index].source, isRepeat: isRepeat, to: partition)
            }
            passed[partition] = records.count
        }
    }

    private func note(_ value: [UInt8], of source: SourcePosition, in partition: Int32) {
        let place = Int64(delivery.log[partition]?.count ?? 0)
        let text = String(showing: value.span)
        if let change = text.firstMatch(of: /"type":"member","chat":"([-0-9a-f]+)".*"meta_version":([0-9]+)/),
            let chat = ChatID(String(change.1)), let version = Int64(change.2)
        {
            versions[partition, default: [:]][place] = (chat, version)
        } else if text.contains(#""event":{"type":"message""#) {
            seqs[partition, default: [:]][place] = source.offset
        }
    }

    // MARK: The naive model

    /// What the devices were shown, held against what was said and who was a member when: nothing of how the pipeline works.
    func faults() -> [String] {
        var faults: [String] = []
        var shown: [Int64: Set<UserID>] = [:]
        var shownBy: [UserID: [Int64]] = [:]
        for device in delivery.devices {
            let partition = device.user.partition(count: delivery.partitionCount)
            let seen = device.seen.compactMap { seqs[partition]?[$0.offset] }
            if let other = shownBy[device.user], other != seen {
                faults.append("two devices of \(device.user) were shown \(other) and \(seen)")
            }
            shownBy[device.user] = seen
            for seq in seen { shown[seq, default: []].insert(device.user) }
            // One partition of chat.incoming, so one order for all chats: this also says that none came twice.
            if !zip(seen, seen.dropFirst()).allSatisfy({ $0 < $1 }) { faults.append("\(device.device) saw \(seen)") }
        }
        var accepted: Set<String> = []
        var lastVersion: [ChatID: Int64] = [:]
        for (offset, record) in join.incoming.enumerated() {
            let to = shown[Int64(offset)] ?? []
            guard let message = try? IncomingMessage(decoding: record.value.span) else {
                if !to.isEmpty { faults.append("garbage \(offset) was shown to \(to)") }
                continue
            }
            let identity = "\(message.from) \(message.id)"
            let since = (join.history[message.chat] ?? [:]).filter { $0.key >= lastVersion[message.chat] ?? 0 }
            if to.isEmpty {
                let mayBeRefused =
                    accepted.contains(identity) || message.target != nil
                    || since.values.contains { $0[message.from] == nil }
                if !mayBeRefused { faults.append("message \(offset) was acknowledged and lost") }
                continue
            }
            // Who got it were the members at one moment: no earlier than what the sender had seen, nor than the chat's last.
            let fitting = since.filter {
                $0.key >= message.metaVersion && $0.value[message.from] != nil && Set($0.value.keys) == to
            }
            if let version = fitting.keys.min() {
                lastVersion[message.chat] = version
            } else {
                faults.append("message \(offset), whose sender knew \(message.metaVersion), was shown to \(to)")
            }
            accepted.insert(identity)
        }
        return faults
    }

    var messageCount: Int { join.incoming.count }
    var shownCount: Int { delivery.devices.reduce(0) { $0 + $1.seen.count } }
}
