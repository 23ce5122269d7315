import KafkaClient
import Wire

/// How a row is doing, from what two looks at the cluster say.
public enum LagState: String, Sendable, Comparable, CaseIterable {
    case ok = "OK"
    /// Over the threshold and not getting better.
    case behind = "BEHIND"
    /// Nobody consumes.
    case empty = "EMPTY"
    /// There is work and no commit has moved.
    case stalled = "STALLED"
    /// The database's disk, or the slot itself, is at risk; or the topic was made again, and the position is of the log before.
    case danger = "DANGER"

    public static func < (left: LagState, right: LagState) -> Bool {
        let order = Self.allCases
        return (order.firstIndex(of: left) ?? 0) < (order.firstIndex(of: right) ?? 0)
    }
}

public struct LagThresholds: Sendable, Equatable {
    /// More than this is BEHIND unless it shrinks; for groups that are not named in `groups`.
    public var behindSeconds = 10.0
    /// The same for these groups.
    public var groups: [String: Double] = [:]
    /// A slot whose confirmed position is older is BEHIND, twice as old STALLED. CDC confirms a heartbeat every five seconds.
    public var slotSeconds = 15.0
    /// What the push stage has said of itself is believed for so long.
    public var noteSeconds = 15.0
    /// Retained WAL above this endangers the database's disk.
    public var retainedBytesMax: Int64 = 1 << 30

    public init() {}

    func behind(_ group: String) -> Double { groups[group] ?? behindSeconds }

    /// A commit may rest for this long: consumers commit now and then, not after each record.
    func stalled(_ group: String) -> Double { behind(group) / 2 }
}

/// One group's lag on one topic, or on one partition of it.
public struct LagRow: Sendable, Equatable {
    public let group: String
    public let topic: String
    /// `nil` for a topic's totals.
    public let partition: Int32?
    public let committed: Int64?
    public let end: Int64
    public let messages: Int64
    /// How long the oldest waiting record has waited, or with a group that lets records wait on purpose, is overdue; 0 when
    /// nothing waits; `nil` when its time is not known.
    public let seconds: Double?
    public let isClamped: Bool
    /// Records a second; `nil` before the second look.
    public let rateIn: Double?
    public let rateOut: Double?
    /// How long ago the group last committed here; for totals, on any partition. `nil` when that is not known.
    public let commitAgeSeconds: Double?
    public let members: Int?
    /// Which member has the partition; `nil` for totals, and where nobody has it.
    public let owner: LagSample.Owner?
    public let state: LagState

    /// How long until nothing waits at the present rates; `nil` when that will not happen, or is not known.
    public var catchUpSeconds: Double? {
        guard messages > 0 else { return 0 }
        guard let rateIn, let rateOut, rateOut > rateIn else { return nil }
        return Double(messages) / (rateOut - rateIn)
    }
}

/// Two looks at the cluster, compared. Pure: times and positions in, rows out.
public struct LagStatus: Sendable {
    public let rows: [LagRow]
    /// The same, a row for each group and topic.
    public let totals: [LagRow]
    public let slots: [(slot: LagSample.Slot, state: LagState)]
    public let instances: [LagSample.Instance]
    public let missing: [String]
    /// Why there are no rows: the cluster does not answer.
    public let clusterError: String?
    public let takenMs: Int64

    public init(before: LagSample?, now: LagSample, thresholds: LagThresholds = LagThresholds()) {
        let earlier = Dictionary((before?.positions ?? []).map { (Key($0), $0) }) { first, _ in first }
        let groups = Dictionary(now.groups.map { ($0.id, $0) }) { first, _ in first }
        let elapsed = before.map { Double(now.takenMs - $0.takenMs) / 1000 } ?? 0
        rows = now.positions.map { position in
            Self.row(
                position, earlier: earlier[Key(position)], elapsed: elapsed, group: groups[position.group],
                nowMs: now.takenMs, thresholds)
        }
        totals = Self.totals(of: rows)
        slots = now.slots.map { ($0, Self.state(of: $0, thresholds)) }
        instances = now.instances
        missing = now.missing
        clusterError = now.clusterError
        takenMs = now.takenMs
    }

    public var worst: LagState { (totals.map(\.state) + slots.map(\.state)).max() ?? .ok }

    private struct Key: Hashable {
        let group: String
        let partition: TopicPartition

        init(_ position: LagSample.Position) {
            group = position.group
            partition = position.partition
        }
    }

    private static func row(
        _ position: LagSample.Position, earlier: LagSample.Position?, elapsed: Double, group: LagSample.Group?,
        nowMs: Int64, _ thresholds: LagThresholds
    ) -> LagRow {
        let seconds = seconds(position, nowMs: nowMs, thresholds)
        var rateIn: Double?
        var rateOut: Double?
        if let earlier, elapsed > 0 {
            rateIn = max(0, Double(position.end - earlier.end)) / elapsed
            // A rewind moves the position back: that is no consumption.
            rateOut = max(0, Double(position.next - earlier.next)) / elapsed
        }
        var state = LagState.ok
        if position.isOfAnotherLog {
            state = .danger
        } else if group?.members == 0 {
            state = .empty
        } else if let earlier, position.messages > 0, earlier.messages > 0, position.next == earlier.next,
            (seconds ?? .infinity) > thresholds.stalled(position.group)
        {
            state = .stalled
        } else if let seconds, seconds > thresholds.behind(position.group),
            earlier.map({ position.messages >= $0.messages }) ?? true
        {
            state = .behind
        }
        return LagRow(
            group: position.group, topic: position.partition.topic, partition: position.partition.partition,
            committed: position.committed, end: position.end, messages: position.messages, seconds: seconds,
            isClamped: position.isClamped, rateIn: rateIn, rateOut: rateOut,
            commitAgeSeconds: position.committedMs.map { max(0, Double(nowMs - $0) / 1000) }, members: group?.members,
            owner: group?.owners[position.partition], state: state)
    }

    /// The push stage says what is overdue: its records wait until their notice is due, and are not late before. What it said
    /// too long ago says nothing: then the records' age counts.
    private static func seconds(
        _ position: LagSample.Position, nowMs: Int64, _ thresholds: LagThresholds
    ) -> Double? {
        guard position.messages > 0 else { return 0 }
        if let note = position.pushNote, Double(nowMs - note.atMs) / 1000 <= thresholds.noteSeconds {
            return note.dueMs.map { max(0, Double(nowMs - $0) / 1000) } ?? 0
        }
        return position.firstWaitingMs.map { max(0, Double(nowMs - $0) / 1000) }
    }

    private static func totals(of rows: [LagRow]) -> [LagRow] {
        var order: [String] = []
        var parts: [String: [LagRow]] = [:]
        for row in rows {
            let key = row.group + "\u{0}" + row.topic
            if parts[key] == nil { order.append(key) }
            parts[key, default: []].append(row)
        }
        return order.compactMap { key in
            guard let rows = parts[key], let first = rows.first else { return nil }
            let known = rows.compactMap(\.seconds)
            func sum(_ rates: [Double?]) -> Double? {
                rates.contains { $0 == nil } ? nil : rates.reduce(0) { $0 + ($1 ?? 0) }
            }
            return LagRow(
                group: first.group, topic: first.topic, partition: nil, committed: nil,
                end: rows.reduce(0) { $0 + $1.end }, messages: rows.reduce(0) { $0 + $1.messages },
                // The worst partition, as a user of it feels it; unknown only if nothing is known.
                seconds: known.isEmpty ? nil : known.max(), isClamped: rows.contains(where: \.isClamped),
                rateIn: sum(rows.map(\.rateIn)), rateOut: sum(rows.map(\.rateOut)),
                commitAgeSeconds: rows.compactMap(\.commitAgeSeconds).min(), members: first.members, owner: nil,
                state: rows.map(\.state).max() ?? .ok)
        }
    }

    private static func state(of slot: LagSample.Slot, _ thresholds: LagThresholds) -> LagState {
        // However new its position is: the changes of these tables are not in it.
        if slot.note?.aside.isEmpty == false { return .danger }
        if slot.walStatus == "lost" || slot.walStatus == "unreserved" { return .danger }
        if let safe = slot.safeBytes, safe < slot.retainedBytes / 4 { return .danger }
        if slot.retainedBytes > thresholds.retainedBytesMax { return .danger }
        let seconds = slot.confirmedAgeSeconds ?? slot.behindSeconds ?? 0
        if seconds > thresholds.slotSeconds * 2 { return .stalled }
        if !slot.isActive { return .empty }
        return seconds > thresholds.slotSeconds ? .behind : .ok
    }
}
