import Foundation

/// A random generator (SplitMix64) whose every number follows from its seed, so that a failure can be run again.
/// It also stands in for the system's generator where a sanitizer looks: ThreadSanitizer reads what is passed `inout`, and
/// that one, which has no state, has no address to read.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64

    public init(_ seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }

    /// A generator with a fresh seed, printed with the test's name; `FANOUT_SEED=n` runs a given one again.
    public static func announced(_ test: String) -> SeededGenerator {
        let seed = freshSeed()
        print("seed \(seed) (\(test); FANOUT_SEED=\(seed) runs it again)")
        return SeededGenerator(seed)
    }

    public static func freshSeed() -> UInt64 {
        ProcessInfo.processInfo.environment["FANOUT_SEED"].flatMap(UInt64.init) ?? .random(in: 0 ... .max)
    }
}
