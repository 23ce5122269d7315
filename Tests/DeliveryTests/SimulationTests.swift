import Foundation
import TestSupport
import Testing

struct SimulationTests {
    /// Each world has a seed of its own. `FANOUT_SEED=n FANOUT_SEEDS=1` runs one again.
    private static let seeds: [UInt64] = {
        let first = SeededGenerator.freshSeed()
        let count = ProcessInfo.processInfo.environment["FANOUT_SEEDS"].flatMap(UInt64.init) ?? 50
        return (0..<count).map { first &+ $0 }
    }()

    @Test(arguments: seeds)
    func `whatever fails, each device is shown each event once and in order`(seed: UInt64) {
        let world = DeliveryWorld(seed: seed)
        for index in world.devices.indices where index % 2 == 0 { world.pickUp(index) }
        for _ in 0..<3_000 { world.step() }
        world.settle()
        world.check(seed)
    }
}
