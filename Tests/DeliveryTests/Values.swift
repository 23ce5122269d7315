import PushLink
import Wire

func user(_ number: Int) -> UserID { UserID(UUID(high: 1, low: UInt64(number))) }
func device(_ number: Int) -> DeviceID { DeviceID(UUID(high: 2, low: UInt64(number))) }
func chat(_ number: Int) -> ChatID { ChatID(UUID(high: 3, low: UInt64(number))) }
func at(_ offset: Int64) -> Cursor { Cursor(offset: offset, timestamp: 1_000 + offset) }

/// Reproducible chance: a failing test prints the seed to run it again with.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }

    mutating func below(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &self) }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
}

extension Dictionary where Key: Comparable {
    /// What follows from a seed must not hang on how a dictionary happens to be laid out.
    var inOrder: [(key: Key, value: Value)] { sorted { $0.key < $1.key } }
}
