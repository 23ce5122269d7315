import PostgresClient
import Store
import Testing
import Wire

@Suite struct LogGenerationTests {
    private let logs = (1...3).compactMap { LogIdentity(topicID: UUID(high: 5, low: $0)) }

    private func claim(_ store: inout StoreConnection, _ log: LogIdentity, _ floors: [Int32: Int32]) throws -> [Int32] {
        try store.rows(LogGenerations.claim("chat.incoming", log, atLeast: floors)).sorted {
            $0.partition < $1.partition
        }.map(\.generation)
    }

    @Test func `the first log has generation 0, each after it the next, and whoever asks again is told the same`()
        throws
    {
        var store = try freshStore()
        #expect(try claim(&store, logs[0], [0: 0, 1: 0]) == [0, 0])
        #expect(try claim(&store, logs[1], [0: 0, 1: 0]) == [1, 1])
        #expect(try claim(&store, logs[1], [0: 0, 1: 0]) == [1, 1])
        #expect(try claim(&store, logs[0], [0: 0, 1: 0]) == [0, 0])
        let known = try store.rows(LogGenerations.known("chat.incoming", logs[1])).map(\.generation)
        #expect(known == [1, 1])
        #expect(try store.rows(LogGenerations.known("chat.incoming", logs[2])).isEmpty)
    }

    @Test func `a partition's generation is raised to what is asked for and never goes back`() throws {
        var store = try freshStore()
        #expect(try claim(&store, logs[0], [0: 4, 1: 0]) == [4, 0])
        #expect(try claim(&store, logs[0], [0: 2, 1: 1]) == [4, 1])
        #expect(try claim(&store, logs[1], [0: 0, 1: 7]) == [5, 7])
    }
}
