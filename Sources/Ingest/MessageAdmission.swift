import Runtime
import Wire

/// Which messages are let into the log, by how long the pipeline takes to bring them back as events.
///
/// The log takes more than the join and Delivery can carry. What is let in beyond that is not lost, but it waits, and all
/// behind it: at four times the capacity every message came after half a minute, most after its sender had given up. So
/// no more may be under way than what comes back within `delayMs` (Little's law: as many as come back a second, times that
/// time). The rest is refused with `overloaded` at once, while its sender can still do something about it.
///
/// Each partition of `chat.incoming` is judged by itself: one whose join waits for a membership does not hold up the
/// others.
///
/// - A burst is no overload: while the oldest message under way is young, all is let in.
/// - A standstill is no overload either. A join that has died comes back in seconds and the log is there to wait in, so
///   while nothing comes back at all, all is let in; and what came in meanwhile does not count against those who come
///   after, until it has been worked off.
///
/// A value; times are monotonic milliseconds.
struct MessageAdmission {
    struct Limits {
        /// How long what is under way may take.
        var delayMs: Int64 = 300
        /// While the oldest under way is younger, all is let in.
        var youthMs: Int64 = 60
        /// Nothing has come back for so long, though many should have: a standstill.
        var standstillMs: Int64 = 250
        /// What has not come back by then never will: its sender has left, or the join has refused it.
        var forgottenMs: Int64 = 60_000
    }

    private struct Partition {
        /// Messages that the log has, by their place in it.
        var underWay = Ring<(seq: Int64, atMs: Int64)>()
        /// Messages that the log has not answered for.
        var unanswered = 0
        /// How many come back a second, smoothed.
        var rate = 0.0
        var countedFromMs: Int64 = 0
        var counted = 0
        var cameBackMs: Int64 = 0
        /// What a standstill has left and is not yet worked off, twice: each message that comes back counts for a half.
        var backlogHalves = 0

        var total: Int { underWay.count + unanswered }
    }

    private let limits: Limits
    private var partitions: [Partition]
    /// Times over which the rate is taken.
    private static let spanMs: Int64 = 50
    private static let leastUnderWay = 8
    /// So many must be missing for a silence to be more than a pause between two.
    private static let missedAtStandstill = 4.0
    /// After a rest as long the old rate tells nothing.
    private static let restMs: Int64 = 1000

    init(partitions count: Int, limits: Limits = Limits()) {
        self.limits = limits
        partitions = Array(repeating: Partition(), count: count)
    }

    /// Messages that have not come back.
    var underWay: Int { partitions.reduce(0) { $0 + $1.total } }

    /// Whether another message may be written to this partition of the log.
    mutating func admits(to partition: Int32, nowMs: Int64) -> Bool {
        let index = Int(partition)
        forgetOld(index, nowMs)
        let state = partitions[index]
        guard let oldest = state.underWay.first, nowMs - oldest.atMs >= limits.youthMs else { return true }
        // Nothing is known of a pipeline that has brought nothing back yet.
        guard state.rate > 0 else { return true }
        // It cannot have come back before it was sent.
        let silenceMs = nowMs - max(state.cameBackMs, oldest.atMs)
        if silenceMs >= limits.standstillMs, Double(silenceMs) * state.rate >= Self.missedAtStandstill * 1000 {
            partitions[index].backlogHalves = 2 * (state.total + 1)
            return true
        }
        let most = Int(state.rate * Double(limits.delayMs) / 1000)
        return state.total < max(most, Self.leastUnderWay) + state.backlogHalves / 2
    }

    /// A message is on its way to the log; `answered` or `failed` follows.
    mutating func sent(to partition: Int32) { partitions[Int(partition)].unanswered += 1 }

    /// The log has it.
    /// - Parameter sentMs: when it was sent there.
    mutating func answered(_ partition: Int32, seq: Int64, sentMs: Int64) {
        partitions[Int(partition)].unanswered -= 1
        // A repeat has a place that was passed long ago.
        guard seq > partitions[Int(partition)].underWay.last?.seq ?? -1 else { return }
        partitions[Int(partition)].underWay.append((seq, sentMs))
    }

    mutating func failed(_ partition: Int32) { partitions[Int(partition)].unanswered -= 1 }

    /// An event of a message of this partition has come. The join takes them in order: all before it have come back, or
    /// never will.
    mutating func cameBack(_ partition: Int32, seq: Int64, nowMs: Int64) {
        let index = Int(partition)
        var count = 0
        while let first = partitions[index].underWay.first, first.seq <= seq {
            _ = partitions[index].underWay.removeFirst()
            count += 1
        }
        guard count > 0 else { return }
        partitions[index].cameBackMs = nowMs
        partitions[index].counted += count
        // More slowly than it shrinks, since others come meanwhile; but it is no licence for ever.
        partitions[index].backlogHalves = max(0, partitions[index].backlogHalves - count)
        let spanMs = nowMs - partitions[index].countedFromMs
        guard spanMs >= Self.spanMs else { return }
        let rate = Double(partitions[index].counted) * 1000 / Double(spanMs)
        let isFresh = spanMs > Self.restMs
        partitions[index].rate = isFresh ? rate : (partitions[index].rate + rate) / 2
        (partitions[index].counted, partitions[index].countedFromMs) = (0, nowMs)
    }

    private mutating func forgetOld(_ index: Int, _ nowMs: Int64) {
        while let first = partitions[index].underWay.first, nowMs - first.atMs > limits.forgottenMs {
            _ = partitions[index].underWay.removeFirst()
        }
    }
}

extension MessageAdmission {
    /// The chat and the place that an event of a message names; nil for every other event. The join writes these fields
    /// first and in this order (`IncomingMessage.writeEvent`), so an event costs no parsing.
    static func place(of event: Span<UInt8>) -> (chat: ChatID, seq: Int64)? {
        let afterChat = prefix.count + UUID.textCount
        let digits = afterChat + middle.count
        guard event.count > digits, event.extracting(0..<prefix.count).elementsEqual(prefix.span),
            event.extracting(afterChat..<digits).elementsEqual(middle.span),
            let chat = UUID(text: event.extracting(prefix.count..<afterChat))
        else { return nil }
        var seq: Int64 = 0
        var index = digits
        while index < event.count, event[index] &- 0x30 < 10, index - digits < 18 {
            seq = seq * 10 + Int64(event[index] &- 0x30)
            index += 1
        }
        return index > digits ? (ChatID(chat), seq) : nil
    }

    private static let prefix = Array(#"{"type":"message","chat":""#.utf8)
    private static let middle = Array(#"","seq":"#.utf8)
}
