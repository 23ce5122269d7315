extension LagTable {
    /// A column of the table: what stands above it, its width, and what it says of a row.
    struct Column: Sendable {
        let title: String
        var width: Int
        var isLeft = false
        var keepsEnd = false
        let text: @Sendable (LagRow) -> String

        /// What fits, the most telling first: at 80 columns the totals have everything but the members and the commits,
        /// and a partition's row has those instead of the rates.
        static func fitting(_ columns: Int, partitions: Bool) -> [Column] {
            var shown =
                partitions ? [waiting, behind, commit, state, owner] : [waiting, behind, rateIn, rateOut, left, state]
            let wanted = partitions ? [rateIn, rateOut, left] : [commit, members]
            // The names get what is left, and at 80 columns always the same.
            var room = columns - shown.reduce(0) { $0 + $1.width + 1 }
            for column in wanted where room - column.width - 1 >= 42 {
                room -= column.width + 1
                shown.insert(column, at: shown.firstIndex { $0.title == state.title } ?? 0)
            }
            var (group, topic) = (group, topic)
            group.width = min(max((room - 1) * 15 / 33, 6), 30)
            topic.width = min(max(room - 1 - group.width, 8), 40)
            return [group, topic] + shown
        }

        private static let group = Column(title: "GROUP", width: 15, isLeft: true, keepsEnd: true) { $0.group }
        private static let topic = Column(title: "TOPIC", width: 18, isLeft: true, keepsEnd: true) { row in
            row.partition.map { "\(row.topic)/\($0)" } ?? row.topic
        }
        private static let waiting = Column(title: "WAITING", width: 8) {
            LagTable.count(Double($0.messages)) + ($0.isClamped ? "!" : "")
        }
        private static let behind = Column(title: "BEHIND", width: 7) { $0.seconds.map(LagTable.time) ?? "?" }
        private static let rateIn = Column(title: "IN/s", width: 6) { $0.rateIn.map(LagTable.count) ?? "" }
        private static let rateOut = Column(title: "OUT/s", width: 6) { $0.rateOut.map(LagTable.count) ?? "" }
        private static let left = Column(title: "LEFT", width: 6) { row in
            guard row.messages > 0, row.rateIn != nil else { return "" }
            return row.catchUpSeconds.map(LagTable.time) ?? "never"
        }
        private static let commit = Column(title: "COMMIT", width: 6) { row in
            guard let age = row.commitAgeSeconds else {
                return row.committed == nil && row.partition != nil ? "never" : ""
            }
            return LagTable.time(age)
        }
        private static let members = Column(title: "MEMBERS", width: 7) { $0.members.map { "\($0)" } ?? "?" }
        private static let state = Column(title: "STATE", width: 7, isLeft: true) { $0.state.rawValue }
        private static let owner = Column(title: "OWNER", width: 13, isLeft: true) { row in
            row.owner.map { "\($0.name)@\($0.host)" } ?? ""
        }
    }
}
